//! The engine as anybody else would use it: its HTTP API on the Unix socket, one connection a call, nothing of the gateway in between.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::wait::until;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Sends a request and returns the status and the answer's body.
pub fn call(method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let mut stream = send(method, path, body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
    Ok((status, serde_json::from_str(body.trim()).unwrap_or(Value::Null)))
}

fn send(method: &str, path: &str, body: &Value) -> Result<UnixStream> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let mut stream = UnixStream::connect(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock")).context("the engine's socket")?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    Ok(stream)
}

/// The same, where only success will do.
pub fn must(method: &str, path: &str, body: &Value) -> Result<Value> {
    let (status, answer) = call(method, path, body)?;
    ensure!(status < 400, "{method} {path}: {status} {answer}");
    Ok(answer)
}

/// The name and version of the engine, and how it keeps images.
pub fn describe() -> Result<String> {
    let info = must("GET", "/info", &Value::Null)?;
    let text = |key: &str| info[key].as_str().unwrap_or("?").to_owned();
    Ok(format!("Docker Engine {}, {}, cgroup v{}", text("ServerVersion"), text("Driver"), text("CgroupVersion")))
}

/// The status of a container; `None`: there is none.
pub fn status(name: &str) -> Result<Option<String>> {
    let (status, found) = call("GET", &format!("/containers/{name}/json"), &Value::Null)?;
    if status == 404 {
        return Ok(None);
    }
    Ok(found["State"]["Status"].as_str().map(str::to_owned))
}

/// Starts a container; returns when it runs.
pub fn start(name: &str) -> Result<()> {
    must("POST", &format!("/containers/{name}/start"), &Value::Null).map(drop)
}

/// Kills a container; returns when it has stopped.
pub fn kill(name: &str) -> Result<()> {
    must("POST", &format!("/containers/{name}/kill"), &Value::Null)?;
    until("a container to stop", || Ok(status(name)?.as_deref() == Some("exited")))
}

/// Removes a container; returns when it is gone.
pub fn remove(name: &str) -> Result<()> {
    match call("DELETE", &format!("/containers/{name}?force=true&v=true"), &Value::Null)? {
        (0..400 | 404, _) => Ok(()),
        (status, why) => bail!("cannot remove {name}: {status} {why}"),
    }
}

/// The names of the containers with this value of the label `innkeeper`, those that do not run included.
pub fn list(instance: &str) -> Result<Vec<(String, String)>> {
    let found =
        must("GET", &format!("/containers/json?all=true&filters=%7B%22label%22%3A%5B%22innkeeper%3D{instance}%22%5D%7D"), &Value::Null)?;
    let one = |container: &Value| {
        let name = container["Names"][0].as_str()?.trim_start_matches('/').to_owned();
        Some((name, container["State"].as_str()?.to_owned()))
    };
    Ok(found.as_array().into_iter().flatten().filter_map(one).collect())
}

/// Where a container's init is mounted.
const INIT: &str = "/.innkeeper";

/// What makes a container equal to an existing one in everything but its name, whose it is, where its home lies, and that it has no init: its
/// first process waits.
pub fn recipe_of(name: &str, home: &str) -> Result<Value> {
    let found = must("GET", &format!("/containers/{name}/json"), &Value::Null)?;
    let mut body = found["Config"].clone();
    body["HostConfig"] = found["HostConfig"].clone();
    body["Labels"] = json!({ LABEL: "" });
    let mounts = body["HostConfig"]["Mounts"].as_array_mut().context("a container without mounts")?;
    mounts.retain(|mount| mount["Target"] != json!(INIT));
    ensure!(mounts.len() == 1, "the home is expected to be the only other mount: {mounts:?}");
    mounts[0]["Source"] = json!(home);
    (body["Entrypoint"], body["Cmd"]) = (json!(["/bin/sleep"]), json!(["infinity"]));
    Ok(body)
}

/// Makes a container; returns when it exists.
pub fn create(name: &str, recipe: &Value) -> Result<()> {
    must("POST", &format!("/containers/create?name={name}"), recipe).map(drop)
}

/// The process on this machine that is a running container's first.
pub fn pid(name: &str) -> Result<u32> {
    let found = must("GET", &format!("/containers/{name}/json"), &Value::Null)?;
    Ok(found["State"]["Pid"].as_u64().context("no pid")?.try_into()?)
}

/// Runs a command that must print this in a container at a terminal, to its end. How long it took from the first request to the first byte.
pub fn exec_at_a_terminal(name: &str, command: &[&str], expected: &str) -> Result<Duration> {
    let began = Instant::now();
    let body = json!({ "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true, "User": "1000:1000", "Cmd": command });
    let made = must("POST", &format!("/containers/{name}/exec"), &body)?;
    let id = made["Id"].as_str().context("no id")?;
    let mut stream = send("POST", &format!("/exec/{id}/start"), &json!({ "Detach": false, "Tty": true }))?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    // The stream of a terminal is the bytes themselves, right behind the answer's head.
    let said = loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the engine said only {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end.filter(|end| answer.len() > *end) {
            break end;
        }
    };
    let took = began.elapsed();
    stream.read_to_end(&mut answer)?;
    ensure!(answer[said..] == *expected.as_bytes(), "not {expected:?}: {:?}", String::from_utf8_lossy(&answer));
    Ok(took)
}

/// Runs a command in a container without a terminal, to its end.
pub fn exec(name: &str, command: &[&str]) -> Result<i64> {
    let body = json!({ "AttachStdout": true, "AttachStderr": true, "User": "1000:1000", "Cmd": command });
    let made = must("POST", &format!("/containers/{name}/exec"), &body)?;
    let id = made["Id"].as_str().context("no id")?;
    must("POST", &format!("/exec/{id}/start"), &json!({ "Detach": false, "Tty": false }))?;
    let ended = must("GET", &format!("/exec/{id}/json"), &Value::Null)?;
    ended["ExitCode"].as_i64().context("no exit code")
}

/// Containers that are made here carry this, and no gateway's mark.
pub const LABEL: &str = "innkeeper-bench";

/// A container of ours that goes when this is dropped.
pub struct Plain(pub String);

impl Drop for Plain {
    fn drop(&mut self) {
        if let Err(why) = remove(&self.0) {
            eprintln!("{why:#}");
        }
    }
}
