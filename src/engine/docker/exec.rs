//! Starting an exec: the connection that asked for it becomes its input and output.
//!
//! Not through bollard, which guesses for each piece whether it is framed, and so eats what a terminal says when it begins with a byte
//! below 3.

use std::io::Cursor;
use std::path::Path;

use bollard::models::ExecConfig;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode};
use tokio::io::AsyncReadExt;

use super::error::{chain, meaning, refusal};
use super::socket;
use crate::engine::{EngineError, ExecId, ExecSpec, ExecStream};

/// A sequence nobody types. The default, Ctrl-P Ctrl-Q, would hold every Ctrl-P back until the next key.
const DETACH_KEYS: &str = "ctrl-@,ctrl-^,ctrl-@,ctrl-],ctrl-@,ctrl-^,ctrl-@,ctrl-_";

/// Longest refusal read, in bytes.
const REFUSAL_MAX: usize = 64 * 1024;

/// The body that makes an exec.
pub(super) fn config(spec: &ExecSpec) -> ExecConfig {
    ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        detach_keys: Some(DETACH_KEYS.to_owned()),
        tty: Some(spec.tty),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        cmd: Some(spec.argv.clone()),
        privileged: Some(false),
        user: Some(format!("{}:{}", spec.user.0, spec.user.1)),
        working_dir: spec.working_dir.clone(),
        console_size: None,
    }
}

/// Starts an exec that was made.
pub(super) async fn start(socket: &Path, id: ExecId, tty: bool) -> Result<ExecStream, EngineError> {
    const CALL: &str = "exec start";
    let broken = |error: &dyn std::error::Error| EngineError::Unreachable(chain(error));
    let request = Request::post(format!("/exec/{}/start", id.0))
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .header(hyper::header::CONNECTION, "Upgrade")
        .header(hyper::header::UPGRADE, "tcp")
        .body(Full::new(Bytes::from(format!(r#"{{"Detach":false,"Tty":{tty}}}"#))))
        .map_err(|error| EngineError::Refused { call: CALL, why: error.to_string() })?;
    let answer = socket::send(socket, request).await.map_err(|error| meaning(CALL, &id.0, error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), REFUSAL_MAX).collect().await.map_err(|error| broken(&*error))?.to_bytes();
        return Err(refusal(CALL, &id.0, status, &String::from_utf8_lossy(&body)));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error))?;
    let Ok(parts) = upgraded.downcast::<socket::Io>() else {
        return Err(EngineError::Refused { call: CALL, why: "not a Unix socket".to_owned() });
    };
    let (output, input) = parts.io.into_inner().into_split();
    // What came in the same piece as the answer's headers belongs to the process already.
    let output = Cursor::new(parts.read_buf).chain(output);
    Ok(ExecStream { id, output: Box::pin(output), input: Box::pin(input) })
}
