//! An SSH client that a test drives call by call: what takes thousands of connections, and what no program of OpenSSH's asks for.
//!
//! What comes out of a container to it is answered: a key agent without keys behind what is forwarded as one and behind sockets, an echo behind
//! ports.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::sync::Arc;

use russh::client::{self, ChannelOpenHandle, Handle, Msg, Session};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelMsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::Gateway;

/// The client's side of what the server asks of it.
pub struct Client;

/// The key that accounts of a test log in with.
pub fn key(gateway: &Gateway) -> Arc<PrivateKey> {
    Arc::new(load_secret_key(gateway.dir.path().join("id"), None).unwrap())
}

/// Connects and logs in.
pub async fn connect(port: u16, account: &str, key: Arc<PrivateKey>) -> Handle<Client> {
    let mut connection = client::connect(Arc::default(), ("127.0.0.1", port), Client).await.unwrap();
    let login = connection.authenticate_publickey(account, PrivateKeyWithHashAlg::new(key, None)).await.unwrap();
    assert!(login.success());
    connection
}

/// Reads a channel to its end and closes it: what was said, and the status.
pub async fn end(mut channel: Channel<Msg>) -> (String, Option<u32>) {
    let (mut said, mut status) = (Vec::new(), None);
    while let Some(news) = channel.wait().await {
        match news {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => said.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Eof => {
                // The library does not hear of the other side's close any more that crosses ours.
                let _ = channel.close().await;
                break;
            }
            _ => {}
        }
    }
    (String::from_utf8_lossy(&said).into_owned(), status)
}

/// Says this, and returns what comes back.
pub async fn ask(channel: Channel<Msg>, words: &str) -> String {
    channel.data(words.as_bytes()).await.unwrap();
    channel.eof().await.unwrap();
    end(channel).await.0
}

/// A key agent that has no keys, whatever it is asked.
async fn agent(channel: Channel<Msg>) {
    const NO_KEYS: [u8; 9] = [0, 0, 0, 5, 12, 0, 0, 0, 0];
    let mut stream = channel.into_stream();
    while let Ok(length) = stream.read_u32().await {
        let mut question = vec![0; length as usize];
        if stream.read_exact(&mut question).await.is_err() || stream.write_all(&NO_KEYS).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn echo(channel: Channel<Msg>) {
    let (mut read, mut write) = tokio::io::split(channel.into_stream());
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        tokio::spawn(echo(channel));
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        tokio::spawn(agent(channel));
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        tokio::spawn(agent(channel));
        Ok(())
    }
}
