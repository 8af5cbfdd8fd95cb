//! Asking the running gateway over its socket, where it serves the API to whoever may open that.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::name::printable;

/// How long the gateway may take to begin its answer. It waits for nobody but a container that is asked for its logs.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a change may take: a container may have to be stopped for it. The gateway gives up sooner by itself.
const CHANGE_DEADLINE: Duration = Duration::from_secs(600);

/// Where requests are sent to. The name is not looked up: there is one gateway at the socket, on this host.
const HOST: &str = "http://localhost";

/// What the gateway refuses, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(in crate::cli) struct Refused {
    detail: String,
    /// The problem's stable word.
    pub(in crate::cli) code: Option<String>,
}

/// Whether somebody answers at the socket who may be asked.
pub(in crate::cli) fn is_there(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// What the gateway says of something.
pub(in crate::cli) async fn get(socket: &Path, path: &str) -> anyhow::Result<Value> {
    read(ask(socket, path).await?).await
}

/// The gateway's answer, if it is not a refusal.
pub(in crate::cli) async fn ask(socket: &Path, path: &str) -> anyhow::Result<Response> {
    send(socket, Method::GET, path, None, DEADLINE).await
}

/// All entries of a list, page after page.
pub(in crate::cli) async fn list(socket: &Path, path: &str) -> anyhow::Result<Value> {
    Ok(pages(socket, path, DEADLINE).await?.0)
}

/// The same with what stands beside the entries on the last page, of a list for which the gateway may have to ask a service far away.
pub(in crate::cli) async fn whole_list(socket: &Path, path: &str) -> anyhow::Result<(Value, Value)> {
    pages(socket, path, CHANGE_DEADLINE).await
}

/// All entries of a list, and the rest of its last page.
async fn pages(socket: &Path, path: &str, within: Duration) -> anyhow::Result<(Value, Value)> {
    let (mut all, mut rest) = (Vec::new(), Value::Null);
    let mut cursor = String::new();
    for _ in 0..MOST_PAGES {
        let join = if path.contains('?') { '&' } else { '?' };
        let answer = send(socket, Method::GET, &format!("{path}{join}limit=1000{cursor}"), None, within).await?;
        rest = read(answer).await?;
        match rest["items"].take() {
            Value::Array(items) => all.extend(items),
            _ => bail!("the gateway's answer is not understood; is it of another version?"),
        }
        match rest["next"].as_str() {
            Some(next) if next.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) => {
                cursor = format!("&cursor={next}")
            }
            _ => break,
        }
    }
    Ok((Value::Array(all), rest))
}

/// An answer, whole.
async fn read(answer: Response) -> anyhow::Result<Value> {
    tokio::time::timeout(DEADLINE, answer.json()).await.context("the gateway's answer does not end")?.context("the gateway's answer")
}

/// Has the gateway do something, and gives what it says then.
pub(in crate::cli) async fn act(socket: &Path, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let answer = send(socket, method, path, body, CHANGE_DEADLINE).await?;
    let text = tokio::time::timeout(DEADLINE, answer.text()).await.context("the gateway's answer does not end")??;
    // Nothing is said where there is nothing to say.
    if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("the gateway's answer") }
}

/// Has the gateway do something that may take long, hears how it goes, and gives what it says at last.
pub(in crate::cli) async fn watch(
    socket: &Path,
    (method, path, body): (Method, &str, Option<&Value>),
    mut progress: impl FnMut(&Value),
) -> anyhow::Result<Value> {
    let mut done = None;
    let request = (method, path, body);
    events(socket, request, |name, data| {
        match name {
            "done" => done = Some(Ok(data)),
            "error" => done = Some(Err(Refused::of(&data, || "it failed".to_owned()).into())),
            _ => progress(&data),
        }
        done.is_none()
    })
    .await?;
    done.unwrap_or_else(|| bail!("the gateway ended before this was done; when it runs again it finishes or undoes it"))
}

/// Hears server-sent events until `each` has heard enough, or no more come.
pub(in crate::cli) async fn events(
    socket: &Path,
    (method, path, body): (Method, &str, Option<&Value>),
    mut each: impl FnMut(&str, Value) -> bool,
) -> anyhow::Result<()> {
    let mut request = client(socket)?.request(method, format!("{HOST}{path}")).header("accept", "text/event-stream");
    if let Some(body) = body {
        request = request.json(body);
    }
    let mut answer = answered(socket, request, DEADLINE).await?;
    let (mut text, mut name) = (Vec::new(), String::new());
    while let Some(chunk) = chunk(&mut answer).await? {
        text.extend_from_slice(&chunk);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(event) = line.strip_prefix("event:") {
                event.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = serde_json::from_str(data.trim()).context("the gateway's answer is not understood")?;
                if !each(&name, data) {
                    return Ok(());
                }
            }
        }
        if text.len() > LONGEST_LINE {
            bail!("the gateway's answer is not understood");
        }
    }
    Ok(())
}

/// Hands over an answer piece by piece, as long as that works.
pub(in crate::cli) async fn download(
    socket: &Path,
    path: &str,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> anyhow::Result<std::io::Result<()>> {
    let mut answer = ask(socket, path).await?;
    while let Some(piece) = chunk(&mut answer).await.context("not all of it was sent")? {
        if let Err(why) = each(&piece) {
            return Ok(Err(why));
        }
    }
    Ok(Ok(()))
}

/// Most pages that are read of a list.
const MOST_PAGES: usize = 1000;

/// Longest line that is read of an answer, in bytes.
const LONGEST_LINE: usize = 1024 * 1024;

/// How long an import may take: a large home through a slow pipe. When the gateway ends, or this command does, so does the other.
const IMPORT_DEADLINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Sends the gateway something long, and gives what it says then.
pub(in crate::cli) async fn upload(socket: &Path, path: &str, body: reqwest::Body) -> anyhow::Result<Value> {
    let request = client(socket)?.post(format!("{HOST}{path}")).body(body);
    let answer = answered(socket, request, IMPORT_DEADLINE).await?;
    tokio::time::timeout(DEADLINE, answer.json()).await.context("the gateway's answer does not end")?.context("the gateway's answer")
}

/// What comes next of an answer of which something comes every few seconds; `None`: its end.
async fn chunk(answer: &mut Response) -> anyhow::Result<Option<Vec<u8>>> {
    let chunk = tokio::time::timeout(DEADLINE, answer.chunk()).await.context("the gateway says nothing more; it goes on by itself")?;
    Ok(chunk.context("the gateway ended before this was done; when it runs again it finishes or undoes it")?.map(|chunk| chunk.to_vec()))
}

async fn send(socket: &Path, method: Method, path: &str, body: Option<&Value>, within: Duration) -> anyhow::Result<Response> {
    let mut request = client(socket)?.request(method, format!("{HOST}{path}"));
    if let Some(body) = body {
        request = request.json(body);
    }
    answered(socket, request, within).await
}

fn client(socket: &Path) -> anyhow::Result<Client> {
    Client::builder().no_proxy().unix_socket(socket).build().context("asking the gateway")
}

async fn answered(socket: &Path, request: RequestBuilder, within: Duration) -> anyhow::Result<Response> {
    let answer = match tokio::time::timeout(within, request.send()).await {
        Err(_) => bail!("the gateway at {} does not answer", socket.display()),
        Ok(Err(why)) if why.is_connect() => {
            let why = anyhow!(why).root_cause().to_string();
            bail!("no gateway answers at {}: is `innkeeper serve` running? ({why})", socket.display())
        }
        Ok(answer) => answer.context("asking the gateway")?,
    };
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let why = answer.json::<Value>().await.unwrap_or_default();
    Err(Refused::of(&why, || format!("the gateway answered {status}")).into())
}

impl Refused {
    /// What a problem says; its text is a stranger's, as far as it names what was asked for.
    fn of(problem: &Value, otherwise: impl FnOnce() -> String) -> Self {
        let detail = problem["detail"].as_str().map_or_else(otherwise, printable);
        Self { detail, code: problem["code"].as_str().map(printable) }
    }
}
