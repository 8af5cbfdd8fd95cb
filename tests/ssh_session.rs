//! Sessions, driven by the real OpenSSH client: what programs and people need of them.

#[path = "common/ssh.rs"]
mod common;

use common::{Gateway, text, within};

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_arrive() {
    within(60, async {
        let gateway = Gateway::start().await;
        for (command, status) in [("true", 0), ("exit 5", 5), ("exit 255", 255), ("no-such-command-at-all", 127)] {
            let output = gateway.run(command).await;
            assert_eq!(output.status.code(), Some(status), "{command}: {}", text(&output.stderr));
        }
        assert_eq!(gateway.run("kill -TERM $$").await.status.code(), Some(255), "OpenSSH's status for an exit-signal");
    })
    .await;
}
