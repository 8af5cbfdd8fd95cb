//! Much data through a forwarded port, from something that listens where the server is: in the container, or beside sshd.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::bulk::{BOUND, BYTES};
use crate::client::{self, Master};
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::samples::Samples;

/// How long nothing may arrive.
const DEADLINE: Duration = Duration::from_secs(30);

/// Its row of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let account = "listener".to_owned();
    let gateway = Gateway::start(&run.place, Setup { name: "forward", ..Setup::default() }, std::slice::from_ref(&account))?;
    client::run(run.place.ssh(gateway.port, &account).arg("true"))?;
    let to_ours = Master::open(&run.place, gateway.port, &account, &[])?;
    let to_sshd = Master::open(&run.place, run.sshd.port, "root", &[])?;
    let (in_container, on_host) = (Source::start(&to_ours)?, Source::start(&to_sshd)?);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for round in 0..run.repetitions(5, 2) {
        run.progress(&format!("forward: round {}", round + 1));
        for (source, throughput) in [(&in_container, &mut ours), (&on_host, &mut theirs)] {
            throughput.add(source.drain()?);
        }
    }
    let what = "1 GB through a forwarded port (`-L`); beside: sshd";
    Ok(vec![Row::of(what, &ours, &theirs, "MB/s").at_least(BOUND * theirs.median())])
}

/// Something that writes a gigabyte to whoever connects, and the port on this machine that leads to it. Ends when dropped.
struct Source {
    child: Child,
    port: u16,
}

impl Source {
    fn start(master: &Master<'_>) -> Result<Self> {
        let child = master.ssh().arg(program()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut source = Self { child, port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port() };
        let mut there = String::new();
        BufReader::new(source.child.stdout.take().context("a pipe")?).read_line(&mut there)?;
        let there: u16 = there.trim().parse().with_context(|| format!("no port: {there:?}"))?;
        master.ask(&["-O", "forward", "-L", &format!("127.0.0.1:{}:127.0.0.1:{there}", source.port)])?;
        Ok(source)
    }

    /// Reads all there is, and says how many MB arrived in a second.
    fn drain(&self) -> Result<f64> {
        crate::wait::go_on()?;
        let began = Instant::now();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let (mut arrived, mut buffer) = (0, vec![0; 256 * 1024]);
        loop {
            match stream.read(&mut buffer).with_context(|| format!("after {arrived} bytes"))? {
                0 => break,
                read => arrived += read as u64,
            }
        }
        let took = began.elapsed().as_secs_f64();
        ensure!(arrived == BYTES, "{arrived} bytes of {BYTES} arrived");
        #[allow(clippy::cast_precision_loss, reason = "a gigabyte")]
        Ok(arrived as f64 / 1e6 / took)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // With the client its input ends, which the program there takes for its own end.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The same program on both sides, of what every Debian has: prints the port it listens on, ends with its input, or after ten minutes.
fn program() -> String {
    format!(
        "exec perl -e 'use Socket; $| = 1; alarm 600; $SIG{{PIPE}} = \"IGNORE\"; $data = \"\\0\" x 65536; \
         socket(S, PF_INET, SOCK_STREAM, 0) && bind(S, sockaddr_in(0, INADDR_LOOPBACK)) && listen(S, 8) || die $!; \
         print +(sockaddr_in(getsockname(S)))[0], \"\\n\"; \
         while (1) {{ \
         $ready = \"\"; vec($ready, 0, 1) = 1; vec($ready, fileno(S), 1) = 1; select($ready, undef, undef, undef); \
         last if vec($ready, 0, 1); \
         accept(C, S) || die $!; $left = {BYTES}; \
         while ($left) {{ $n = syswrite(C, $data, $left < 65536 ? $left : 65536); last unless $n; $left -= $n }} \
         close C }}'"
    )
}
