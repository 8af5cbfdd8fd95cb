//! Names of hosts, as the container has them: its hosts file, then its name servers.
//!
//! The C library's resolver loads parts of itself from the file system, which a static program cannot rely on in an image of any kind.
//! Answers come over UDP and are believed if they come from the server that was asked, with the number and the question that it was
//! asked. An alias is followed within an answer: name servers that are asked to resolve give both.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::Failure;
use rustix::rand::{GetRandomFlags, getrandom};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::jobs::Refusal;
use crate::login::read;

/// Longest part of either file that is read, in bytes.
const LONGEST: u64 = 256 * 1024;

/// How long a server has for its answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 2;

/// Most servers asked, most suffixes tried, and most addresses taken of one answer: those that the C library takes.
const SERVERS: usize = 3;
const SUFFIXES: usize = 6;
const ADDRESSES: usize = 8;

/// Longest answer, in bytes: what UDP has room for without extensions is 512.
const ANSWER: usize = 4096;

/// What `/etc/resolv.conf` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    servers: Vec<SocketAddr>,
    suffixes: Vec<String>,
    /// A name with as many dots is tried as it is first.
    dots: usize,
}

/// The addresses of a host.
pub(crate) fn resolve(host: &str, until: Instant) -> Result<Vec<IpAddr>, Refusal> {
    if host.is_empty() || host.len() > 253 || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err((Failure::Invalid, "no name of a host".to_owned()));
    }
    let found = hosts(&read("/etc/hosts", LONGEST), host);
    if !found.is_empty() {
        return Ok(found);
    }
    ask_all(&config(&read("/etc/resolv.conf", LONGEST)), host, until)
}

fn ask_all(config: &Config, host: &str, until: Instant) -> Result<Vec<IpAddr>, Refusal> {
    let mut silent = !config.servers.is_empty();
    for name in candidates(config, host) {
        let mut found = Vec::new();
        for kind in [TYPE::A, TYPE::AAAA] {
            if let Some(addresses) = ask(&config.servers, &name, kind, until) {
                silent = false;
                found.extend(addresses);
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    if silent {
        Err((Failure::TimedOut, format!("{host}: no name server answers")))
    } else {
        Err((Failure::NotFound, format!("{host}: no such host")))
    }
}

/// The addresses that the first server to answer knows; `None` if none has answered.
fn ask(servers: &[SocketAddr], name: &str, kind: TYPE, until: Instant) -> Option<Vec<IpAddr>> {
    let tries = (0..TRIES).flat_map(|_| servers);
    tries.take_while(|_| Instant::now() < until).find_map(|server| exchange(*server, name, kind, until.min(Instant::now() + PATIENCE)))
}

fn exchange(server: SocketAddr, name: &str, kind: TYPE, until: Instant) -> Option<Vec<IpAddr>> {
    // An address, not text: that could be a name, and would bring the C library's resolver with it.
    let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    // Connected: what others send does not arrive.
    socket.connect(server).ok()?;
    let mut random = [0; 2];
    getrandom(&mut random, GetRandomFlags::empty()).ok()?;
    let id = u16::from_ne_bytes(random);
    socket.send(&query(id, name, kind)?).ok()?;
    let mut buffer = [0; ANSWER];
    loop {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        socket.set_read_timeout(Some(left)).ok()?;
        let length = socket.recv(&mut buffer).ok()?;
        if let Some(addresses) = answer(buffer.get(..length)?, id, name, kind) {
            return addresses;
        }
    }
}

fn query(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).ok()?, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// `None`: it is no answer to this. `Some(None)`: the server cannot say.
pub(crate) fn answer(bytes: &[u8], id: u16, name: &str, kind: TYPE) -> Option<Option<Vec<IpAddr>>> {
    let packet = Packet::parse(bytes).ok()?;
    let [question] = packet.questions.as_slice() else { return None };
    let asked = question.qname.to_string().trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'));
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked || question.qtype != QTYPE::TYPE(kind) {
        return None;
    }
    if !matches!(packet.rcode(), RCODE::NoError | RCODE::NameError) {
        return Some(None);
    }
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::from(a.address.to_be_bytes())),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.address.to_be_bytes())),
        _ => None,
    });
    Some(Some(addresses.take(ADDRESSES).collect()))
}

/// The names that a host may have in full, in the order in which they are tried.
pub(crate) fn candidates(config: &Config, host: &str) -> Vec<String> {
    if let Some(full) = host.strip_suffix('.') {
        return vec![full.to_owned()];
    }
    let mut names: Vec<_> = config.suffixes.iter().map(|suffix| format!("{host}.{suffix}")).collect();
    let whole_first = host.matches('.').count() >= config.dots;
    names.insert(if whole_first { 0 } else { names.len() }, host.to_owned());
    names
}

pub(crate) fn config(file: &[u8]) -> Config {
    let mut config = Config { servers: Vec::new(), suffixes: Vec::new(), dots: 1 };
    for line in String::from_utf8_lossy(file).lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().and_then(|server| Some(SocketAddr::new(server.parse().ok()?, 53)))),
            Some("search" | "domain") => {
                config.suffixes = words.take(SUFFIXES).map(|suffix| suffix.trim_end_matches('.').to_owned()).collect()
            }
            Some("options") => {
                let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                config.dots = dots.unwrap_or(config.dots);
            }
            _ => {}
        }
    }
    config.suffixes.retain(|suffix| !suffix.is_empty());
    config.servers.truncate(SERVERS);
    config
}

pub(crate) fn hosts(file: &[u8], host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let text = String::from_utf8_lossy(file);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    lines.take(ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    use super::*;

    fn reply(query: &[u8], id: Option<u16>) -> Vec<u8> {
        let asked = Packet::parse(query).unwrap();
        let mut packet = Packet::new_reply(id.unwrap_or(asked.id()));
        let name = asked.questions[0].qname.clone();
        let alias = Name::new_unchecked("real.test");
        packet.answers.push(ResourceRecord::new(name, CLASS::IN, 1, RData::CNAME(CNAME(alias.clone()))));
        if asked.questions[0].qtype == QTYPE::TYPE(TYPE::A) {
            packet.answers.push(ResourceRecord::new(alias, CLASS::IN, 1, RData::A(A { address: Ipv4Addr::new(10, 1, 2, 3).into() })));
        }
        packet.questions = asked.questions;
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn a_server_is_believed_if_it_answers_what_it_was_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = Config { servers: vec![server.local_addr().unwrap()], suffixes: vec!["svc.test".into()], dots: 1 };
        let asked = std::thread::spawn(move || {
            let mut names = Vec::new();
            for _ in 0..2 {
                let mut buffer = [0; 512];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let query = &buffer[..length];
                names.push(Packet::parse(query).unwrap().questions[0].qname.to_string());
                for wrong in [&b"?"[..], query, &reply(query, Some(Packet::parse(query).unwrap().id() ^ 1))] {
                    server.send_to(wrong, from).unwrap();
                }
                server.send_to(&reply(query, None), from).unwrap();
            }
            names
        });
        let until = Instant::now() + Duration::from_secs(5);
        assert_eq!(ask_all(&config, "db", until).unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(asked.join().unwrap(), ["db.svc.test", "db.svc.test"]);
    }

    #[test]
    fn files_are_read_as_the_c_library_does() {
        let file = b"# x\nnameserver 127.0.0.11\nnameserver nonsense\nnameserver ::1\nsearch a.test b.test.\noptions edns0 ndots:2\n";
        let config = config(file);
        assert_eq!(config.servers, ["127.0.0.11:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(candidates(&config, "db.x"), ["db.x.a.test", "db.x.b.test", "db.x"]);
        assert_eq!(candidates(&config, "a.b.c")[0], "a.b.c");
        assert_eq!(candidates(&config, "db."), ["db"]);
        let file = b"127.0.0.1 localhost\n10.0.0.7 db DB.test # other\nbad db\n::7 db\n";
        assert_eq!(hosts(file, "Db"), ["10.0.0.7".parse::<IpAddr>().unwrap(), "::7".parse().unwrap()]);
        assert_eq!(hosts(file, "other"), Vec::<IpAddr>::new());
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let until = Instant::now();
        for host in ["", "a b", "ä", &"x".repeat(300)] {
            assert_eq!(resolve(host, until).unwrap_err().0, Failure::Invalid);
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = answer(&bytes, 1, "db", TYPE::A);
            let _ = (config(&bytes), hosts(&bytes, "db"));
        }
    }
}
