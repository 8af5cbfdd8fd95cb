//! Workspace URLs, beside nginx in front of the same container.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Run;
use crate::gateway::{Gateway, Setup};
use crate::report::{Row, round};
use crate::samples::Samples;
use crate::{client, docker, wait};

/// The least part of nginx's requests a second that is good enough.
const LEAST: f64 = 0.8;

/// How much later 99 of 100 answers may come than from the container itself, in milliseconds.
const LATER: f64 = 1.0;

/// Requests at a time, and for how long at a stretch.
const AT_ONCE: u32 = 16;
const STRETCH: Duration = Duration::from_secs(4);

/// The port inside.
const PORT: u16 = 8080;

/// What answers inside: as little as possible, so that the proxies are what is measured.
const APPLICATION: &str = r"
import asyncio
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        for _ in range(data.count(b'\r\n\r\n')):
            self.transport.write(b'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 256\r\n\r\n' + b'x' * 256)
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, '0.0.0.0', 8080, backlog=512)
    print('up', flush=True)
    await server.serve_forever()
asyncio.run(main())
";

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    run.progress("urls");
    let sections = format!("[urls]\nlisten = \"127.0.0.1:0\"\ndomain = \"bench.test\"\npublic = [{PORT}]\n");
    let gateway = Gateway::start(&run.place, Setup { name: "urls", sections: &sections, ..Setup::default() }, &["web".to_owned()])?;
    let mut write = run.place.ssh(gateway.port, "web").arg("cat > app.py").stdin(Stdio::piped()).spawn()?;
    write.stdin.take().context("a pipe")?.write_all(APPLICATION.as_bytes())?;
    ensure!(write.wait()?.success(), "the application could not be written");
    client::run(
        run.place.ssh(gateway.port, "web").arg("setsid python3 app.py > said 2>&1 < /dev/null & until grep -q up said; do sleep 0.1; done"),
    )?;
    let inspected = docker::must("GET", &format!("/containers/{}/json", gateway.container("web")), &serde_json::Value::Null)?;
    let networks = inspected["NetworkSettings"]["Networks"].as_object().context("networks")?;
    let address = networks.values().find_map(|network| network["IPAddress"].as_str()).context("an address")?.to_owned();
    let nginx = Nginx::start(run, &address)?;
    let host = format!("{PORT}--web.bench.test");
    let ours = Way { address: format!("127.0.0.1:{}", gateway.urls_port), host: host.clone() };
    let theirs = Way { address: format!("127.0.0.1:{}", nginx.port), host: host.clone() };
    let direct = Way { address: format!("{address}:{PORT}"), host };
    let (mut rate, mut rate_beside) = (Samples::default(), Samples::default());
    let (mut late, mut late_beside, mut late_direct) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..run.repetitions(5, 1) {
        rate.add(ours.rate()?);
        rate_beside.add(theirs.rate()?);
        for (way, into) in [(&direct, &mut late_direct), (&ours, &mut late), (&theirs, &mut late_beside)] {
            way.times(run.repetitions(2000, 200), into)?;
        }
    }
    let least = rate_beside.median() * LEAST;
    let later = late.quantile(0.99) - late_direct.quantile(0.99);
    let later_beside = late_beside.quantile(0.99) - late_direct.quantile(0.99);
    let note = format!(
        "the container itself: {} ms; medians {}, {} and {} ms",
        round(late_direct.quantile(0.99)),
        round(late.median()),
        round(late_beside.median()),
        round(late_direct.median())
    );
    Ok(vec![
        Row::of(
            format!("requests to a workspace's URL, {AT_ONCE} at a time; beside: nginx before the same container"),
            &rate,
            &rate_beside,
            "/s",
        )
        .at_least(least),
        Row::new("added to an answer, one request at a time, 99th percentile; beside: nginx", later, "ms")
            .beside(later_beside)
            .at_most(LATER)
            .note(note),
    ])
}

/// A way to the application.
struct Way {
    address: String,
    host: String,
}

impl Way {
    /// Requests a second that are answered.
    fn rate(&self) -> Result<f64> {
        wait::go_on()?;
        let (at_once, stretch) = (AT_ONCE.to_string(), format!("{}s", STRETCH.as_secs()));
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c", &at_once, "-d", &stretch, "-H", &format!("Host: {}", self.host), &format!("http://{}/", self.address)]);
        let output = command.output().context("wrk")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"), "{command:?}: {text}");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")).with_context(|| text.clone())?;
        Ok(line.trim().parse()?)
    }

    /// How long each of so many answers takes, one after the other on one connection.
    fn times(&self, count: usize, into: &mut Samples) -> Result<()> {
        wait::go_on()?;
        let mut connection = TcpStream::connect(&self.address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let mut answer = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            connection.write_all(request.as_bytes())?;
            answer.clear();
            while !is_whole(&answer) {
                let mut bytes = [0; 4096];
                match connection.read(&mut bytes)? {
                    0 => bail!("hung up: {}", String::from_utf8_lossy(&answer)),
                    length => answer.extend_from_slice(&bytes[..length]),
                }
            }
            into.push(began.elapsed());
            ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }
}

/// Whether the whole answer of the application is there: its head, and 256 bytes.
fn is_whole(answer: &[u8]) -> bool {
    answer.windows(4).position(|window| window == b"\r\n\r\n").is_some_and(|head| answer.len() >= head + 4 + 256)
}

/// nginx, on a port of its own.
struct Nginx {
    process: Child,
    port: u16,
}

impl Nginx {
    fn start(run: &Run, address: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = run.place.path("nginx");
        fs::create_dir(&dir)?;
        let at = dir.display();
        let config = format!(
            "daemon off;\nuser root;\nworker_processes auto;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\n\
             http {{\n access_log off;\n client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
             keepalive_requests 1000000;\n upstream application {{ server {address}:{PORT}; keepalive 64; keepalive_requests 1000000; }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://application; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }}\n}}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nginx")?;
        let nginx = Self { process, port };
        wait::until("nginx to listen", || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only where it is asked to.
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        self.process.wait().ok();
    }
}
