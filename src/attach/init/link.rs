//! The conversation with one container's init: orders out, reports in, each answer to whoever asked.
//!
//! One task has the socket. It is also all that stands between the gateway's memory and what a container sends: a message is bounded, what is
//! kept of it as well, and whatever was not asked for is dropped, its descriptors closed. An init that breaks the protocol is hung up on.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use innkeeper_init::closing::Foreign;
use innkeeper_init::protocol::{Exit, Order, Report, ServiceState, VERSION};
use innkeeper_init::wire::{self, Received, WireError};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::descriptor::{Socket, polled};
use super::leases::Leases;
use crate::attach::{Address, AttachError, Incoming, Question, Standing};
use crate::engine::ContainerId;

/// Longest report that is taken, in bytes. The longest that an init sends lists a few hundred terminals.
const LONGEST_REPORT: usize = 64 * 1024;

/// Orders that wait for the socket; who has more to ask waits.
const ORDERS: usize = 64;

/// Questions that may be open at once.
const QUESTIONS: usize = 1024;

/// Processes and listeners that are kept account of. An init makes no more by itself.
const MOST_PROCESSES: usize = 4096;

/// Connections to a listener that wait to be taken; more are closed.
const WAITING: usize = 64;

/// How long init may take to say hello.
const HELLO: Duration = Duration::from_secs(5);

/// Reports that nobody asked for, a second, beyond which an init is made to wait; and their bytes. Reading the longest takes as long as
/// a hundred short ones.
const NEWS: u32 = 2000;
const NEWS_BYTES: usize = 1 << 20;

/// Services that are kept account of. What is configured is looked up among them.
const MOST_SERVICES: usize = 256;

/// Longest text of an address that somebody has connected from, in bytes. What init says is a number's.
const LONGEST_ADDRESS: usize = 64;

/// Questions from inside one container that are answered at once.
const ASKING: usize = 8;

/// How long it may take to find out how a workspace stands.
const STANDING: Duration = Duration::from_secs(5);

/// The most that a lease can be which an earlier gateway has granted.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Families of sockets that connections out of a container may have.
const FAMILIES: [rustix::net::AddressFamily; 3] =
    [rustix::net::AddressFamily::UNIX, rustix::net::AddressFamily::INET, rustix::net::AddressFamily::INET6];

/// An answer, and what came with it.
type Answer = Result<Answered, AttachError>;

/// A report that answers a question.
pub(super) struct Answered {
    pub(super) report: Report,
    pub(super) descriptors: Vec<Foreign>,
    /// How the process ends that was opened.
    pub(super) exit: Option<watch::Receiver<Option<Exit>>>,
    /// Who connects to the listener that was made.
    pub(super) connections: Option<mpsc::Receiver<Incoming>>,
}

/// One init, for as long as it is there. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    container: ContainerId,
    first: u32,
    /// The version that both speak.
    version: u32,
    orders: mpsc::Sender<Order>,
    /// Who knows how the workspace stands.
    host: mpsc::Sender<Question>,
    /// One permit for each question from inside that is being answered.
    asking: Arc<Semaphore>,
    questions: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    gone: CancellationToken,
    news: News,
}

/// What init has said of itself.
#[derive(Default)]
struct News {
    exits: Mutex<HashMap<u64, watch::Sender<Option<Exit>>>>,
    listeners: Mutex<HashMap<u64, mpsc::Sender<Incoming>>>,
    services: Mutex<Vec<ServiceState>>,
    leases: Leases,
}

// === impl Link ===

impl Link {
    /// Hears hello, and talks from then on. Fails for whoever does not speak as an init does.
    ///
    /// `first` is the process at the other end, as the host numbers it.
    pub(super) async fn begin(
        socket: Foreign,
        container: ContainerId,
        first: u32,
        host: mpsc::Sender<Question>,
    ) -> Result<Self, AttachError> {
        let socket = polled(socket, Interest::READABLE | Interest::WRITABLE).map_err(|why| AttachError::Init(why.to_string()))?;
        let hello = tokio::time::timeout(HELLO, receive(&socket)).await;
        let hello = hello.map_err(|_| AttachError::Init("does not say hello".to_owned()))?.map_err(broken)?;
        let Report::Hello { version, terminals, leases, services } = hello.message else {
            return Err(AttachError::Init("says something else than hello".to_owned()));
        };
        let (orders, outgoing) = mpsc::channel(ORDERS);
        let news = News::default();
        news.set_services(services);
        // Granted by an earlier gateway.
        leases.into_iter().for_each(|lease| drop(news.leases.ask(&lease, LONGEST_LEASE)));
        // Those that another gateway was cut off from are kept for those who come back to them.
        if let Some(left) = terminals.iter().filter_map(|terminal| terminal.left).max() {
            news.leases.keep_for(Duration::from_secs(left.into()).min(LONGEST_LEASE));
        }
        let version = version.min(VERSION);
        let link = Self(Arc::new(Inner {
            container,
            first,
            version,
            orders,
            host,
            asking: Arc::new(Semaphore::new(ASKING)),
            questions: Mutex::default(),
            next: AtomicU64::new(1),
            gone: CancellationToken::new(),
            news,
        }));
        link.say(Order::Welcome { version }).await?;
        tokio::spawn(link.clone().talk(socket, outgoing));
        Ok(link)
    }

    /// The process at the other end, as the host numbers it.
    pub(super) fn first(&self) -> u32 {
        self.0.first
    }

    /// Cancelled when it is not there any more.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.0.gone
    }

    /// Ends it: it was replaced, or its container is gone.
    pub(super) fn hang_up(&self) {
        self.0.gone.cancel();
    }

    /// How its services stood when it last said so.
    pub(super) fn services(&self) -> Vec<ServiceState> {
        self.0.news.services.lock().clone()
    }

    /// What inside asks to be kept running.
    pub(super) fn leases(&self) -> &Leases {
        &self.0.news.leases
    }

    /// Says something that has no answer.
    pub(super) async fn say(&self, order: Order) -> Result<(), AttachError> {
        // It would be passed over, and whoever asked would wait in vain.
        if !self.knows(&order) {
            return Err(AttachError::Unsupported("by an init older than the gateway; the workspace's next container has a newer one"));
        }
        self.0.orders.send(order).await.map_err(|_| lost())
    }

    /// Says something that has no answer, or nothing if init does not listen.
    pub(super) fn say_now(&self, order: Order) {
        if self.knows(&order) {
            let _ = self.0.orders.try_send(order);
        }
    }

    fn knows(&self, order: &Order) -> bool {
        order.since() <= self.0.version
    }

    /// Asks for something; `within` is how long the answer may take. What an answer brings that comes too late is closed.
    pub(super) async fn ask(&self, within: Duration, order: impl FnOnce(u64) -> Order) -> Answer {
        let request = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut questions = self.0.questions.lock();
            if questions.len() >= QUESTIONS {
                return Err(AttachError::Init("too much was asked of it at once".to_owned()));
            }
            questions.insert(request, sender);
        }
        // However this ends, dropped halfway included, the question is not kept.
        let _asked = Asked { link: self, request };
        let answered = async {
            self.say(order(request)).await?;
            tokio::select! {
                biased;
                answer = answer => answer.unwrap_or_else(|_| Err(lost())),
                () = self.0.gone.cancelled() => Err(lost()),
            }
        };
        tokio::time::timeout(within, answered).await.unwrap_or_else(|_| Err(AttachError::Init("does not answer".to_owned())))
    }

    async fn talk(self, socket: AsyncFd<Foreign>, mut orders: mpsc::Receiver<Order>) {
        let ended = tokio::select! {
            ended = self.hear(&socket) => ended,
            ended = obey(&socket, &mut orders) => ended,
            () = self.0.gone.cancelled() => WireError::Closed,
        };
        let container = self.0.container.0.as_str();
        match ended {
            WireError::Closed => tracing::info!(container, "init hung up"),
            WireError::Malformed(what) => tracing::warn!(container, what, "init does not keep to the protocol, hanging up"),
            why => tracing::warn!(container, %why, "init lost"),
        }
        self.0.gone.cancel();
        // Who waits for any of these is told by their being gone.
        self.0.questions.lock().clear();
        self.0.news.exits.lock().clear();
        self.0.news.listeners.lock().clear();
        self.0.news.leases.clear();
    }

    /// Takes what comes, until nothing does.
    async fn hear(&self, socket: &AsyncFd<Foreign>) -> WireError {
        let (mut news, mut bytes, mut since) = (0, 0, Instant::now());
        let mut is_newer = false;
        loop {
            let length = match receive(socket).await {
                Ok(Received { message, length, descriptors }) => {
                    if self.take(message, descriptors) {
                        continue;
                    }
                    length
                }
                Err(WireError::Unknown { length }) => {
                    if !std::mem::replace(&mut is_newer, true) {
                        tracing::warn!(
                            container = self.0.container.0,
                            "init is newer than this gateway: what it does not know is passed over"
                        );
                    }
                    length
                }
                Err(why) => return why,
            };
            (news, bytes) = (news + 1, bytes + length);
            if news >= NEWS || bytes >= NEWS_BYTES {
                // Its next ones wait in the socket, and so does it.
                tokio::time::sleep_until(since + Duration::from_secs(1)).await;
                (news, bytes, since) = (0, 0, Instant::now());
            }
            // A socket that is always ready would keep others from this thread.
            tokio::task::yield_now().await;
        }
    }

    /// Gives a report to whom it is for. `false`: it was news.
    fn take(&self, report: Report, descriptors: Vec<Foreign>) -> bool {
        let inner = &*self.0;
        match report {
            Report::Opened { request, process, .. } => self.answer(request, report, descriptors, |answered| {
                answered.exit = Some(inner.news.watch_exit(process)?);
                Ok(())
            }),
            Report::Listening { request, listener, .. } => self.answer(request, report, descriptors, |answered| {
                let (sender, receiver) = mpsc::channel(WAITING);
                let mut listeners = inner.news.listeners.lock();
                listeners.retain(|_, sender| !sender.is_closed());
                if listeners.len() >= MOST_PROCESSES {
                    return Err(AttachError::Init("has too many listeners".to_owned()));
                }
                listeners.insert(listener, sender);
                answered.connections = Some(receiver);
                Ok(())
            }),
            Report::Terminals { request, .. } | Report::Connected { request } => self.answer(request, report, descriptors, |_| Ok(())),
            Report::Failed { request, why, text } => {
                let text = crate::name::printable(&text.chars().take(256).collect::<String>());
                if let Some(asker) = inner.questions.lock().remove(&request) {
                    let _ = asker.send(Err(AttachError::Failed { why, text }));
                    return true;
                }
                false
            }
            Report::Exited { process, exit } => {
                // Taken out: numbers are never used again.
                if let Some(watchers) = inner.news.exits.lock().remove(&process) {
                    watchers.send_replace(Some(exit));
                }
                false
            }
            Report::Accepted { listener, from } => {
                let sender = inner.news.listeners.lock().get(&listener).cloned();
                let stream = only(descriptors).and_then(|one| Socket::new(one, &FAMILIES).ok());
                let from = from.filter(|from| match from {
                    Address::Tcp { host, .. } => host.len() <= LONGEST_ADDRESS,
                    Address::Unix { .. } => false,
                });
                match (sender, stream) {
                    (Some(sender), Some(stream)) => {
                        if sender.try_send(Incoming { stream: Box::new(stream), from }).is_err() {
                            tracing::debug!(listener, "connection closed: nobody takes it");
                        }
                    }
                    (None, _) => self.say_now(Order::Unlisten { listener }),
                    (Some(_), None) => {}
                }
                false
            }
            Report::Services { services } => {
                inner.news.set_services(services);
                false
            }
            Report::KeepAsked { lease } => {
                self.when_known(move |link, standing| link.leases().ask(&lease, standing.longest_lease));
                false
            }
            Report::KeepEnded { lease } => {
                inner.news.leases.end(lease);
                false
            }
            Report::StatusAsked { question } => {
                self.when_known(move |link, standing| Order::StatusAnswer { question, text: standing.text + &link.leases().status() });
                false
            }
            Report::Hello { .. } => false,
        }
    }

    /// Answers a question from inside once it is known how the workspace stands. More at once than is sensible are not answered.
    fn when_known(&self, answer: impl FnOnce(&Self, Standing) -> Order + Send + 'static) {
        let Ok(permit) = Arc::clone(&self.0.asking).try_acquire_owned() else { return };
        let link = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let (sender, standing) = oneshot::channel();
            let question = Question { container: link.0.container.clone(), answer: sender };
            let asked = link.0.host.try_send(question).is_ok();
            let standing = if asked { tokio::time::timeout(STANDING, standing).await.ok().and_then(Result::ok) } else { None };
            let order = answer(&link, standing.unwrap_or_default());
            let _ = link.say(order).await;
        });
    }

    fn answer(
        &self,
        request: u64,
        report: Report,
        descriptors: Vec<Foreign>,
        complete: impl FnOnce(&mut Answered) -> Result<(), AttachError>,
    ) -> bool {
        let Some(asker) = self.0.questions.lock().remove(&request) else { return false };
        let mut answered = Answered { report, descriptors, exit: None, connections: None };
        let completed = complete(&mut answered);
        let _ = asker.send(completed.map(|()| answered));
        true
    }
}

// === impl News ===

impl News {
    fn set_services(&self, mut services: Vec<ServiceState>) {
        services.truncate(MOST_SERVICES);
        services.shrink_to_fit();
        *self.services.lock() = services;
    }

    /// How a process ends. One that has several who watch it ends for all of them.
    fn watch_exit(&self, process: u64) -> Result<watch::Receiver<Option<Exit>>, AttachError> {
        let mut exits = self.exits.lock();
        if exits.len() >= MOST_PROCESSES {
            // Its ends were never told, and nobody waits for them any more.
            exits.retain(|_, watchers| watchers.receiver_count() > 0);
            if exits.len() >= MOST_PROCESSES {
                return Err(AttachError::Init("has too many processes".to_owned()));
            }
        }
        Ok(exits.entry(process).or_insert_with(|| watch::Sender::new(None)).subscribe())
    }
}

/// A question that is open until this is dropped.
struct Asked<'a> {
    link: &'a Link,
    request: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.link.0.questions.lock().remove(&self.request);
    }
}

/// Sends what is ordered, one after the other.
async fn obey(socket: &AsyncFd<Foreign>, orders: &mut mpsc::Receiver<Order>) -> WireError {
    while let Some(order) = orders.recv().await {
        let bytes = match wire::encode(&order) {
            Ok(bytes) => bytes,
            // Its asker hears nothing of it until its deadline; what can be this long is bounded before.
            Err(why) => {
                tracing::warn!(%why, "order not sent");
                continue;
            }
        };
        loop {
            let mut ready = match socket.writable().await {
                Ok(ready) => ready,
                Err(why) => return WireError::Io(why),
            };
            match wire::send(ready.get_inner().as_fd(), &bytes, &[]) {
                Ok(()) => break,
                Err(WireError::WouldBlock) => ready.clear_ready(),
                Err(why) => return why,
            }
        }
    }
    WireError::Closed
}

/// The next report. The buffer is there only while one is: a link that is silent holds none.
async fn receive(socket: &AsyncFd<Foreign>) -> Result<Received<Report, Foreign>, WireError> {
    loop {
        let mut ready = socket.readable().await.map_err(WireError::Io)?;
        match wire::receive_foreign(ready.get_inner().as_fd(), &mut vec![0; LONGEST_REPORT]) {
            Err(WireError::WouldBlock) => ready.clear_ready(),
            other => return other,
        }
    }
}

/// The one descriptor beside a report; none where there are others.
fn only(mut descriptors: Vec<Foreign>) -> Option<Foreign> {
    let one = descriptors.pop();
    if descriptors.is_empty() { one } else { None }
}

fn lost() -> AttachError {
    AttachError::Init("is not there any more".to_owned())
}

fn broken(why: WireError) -> AttachError {
    AttachError::Init(why.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use innkeeper_init::protocol::{Failure, Lease, Size, Terminal};
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// What a peer does next.
    #[derive(Debug, Clone)]
    enum Deed {
        Says(Report, Vec<Kind>),
        /// Bytes that are no message.
        Babbles(Vec<u8>),
        /// The gateway asks.
        Asked,
    }

    /// A kind of descriptor.
    #[derive(Debug, Clone, Copy)]
    enum Kind {
        Pipe,
        Stream,
        Whole,
        File,
        Network,
    }

    fn descriptor(kind: Kind) -> OwnedFd {
        let pair = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap().0;
        match kind {
            Kind::Pipe => rustix::pipe::pipe().unwrap().0,
            Kind::Stream => pair(SocketType::STREAM),
            Kind::Whole => pair(SocketType::SEQPACKET),
            Kind::File => std::fs::File::open("/dev/null").unwrap().into(),
            Kind::Network => std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
        }
    }

    fn report() -> impl Strategy<Value = Report> {
        // Few numbers, so that some are those of questions and listeners.
        let number = || 0_u64..6;
        let word = || "[a-z\\x00-\\x1f]{0,40}";
        let address = (word(), any::<u16>()).prop_map(|(host, port)| Address::Tcp { host, port });
        let exit = prop_oneof![any::<u8>().prop_map(Exit::Status), any::<u8>().prop_map(Exit::Signal)];
        let terminal = (number(), word(), any::<u32>(), any::<Option<u32>>()).prop_map(|(process, name, viewers, left)| Terminal {
            process,
            name,
            viewers,
            alone: 0,
            left,
        });
        let terminals = || proptest::collection::vec(terminal.clone(), 0..9);
        let lease = || (any::<u64>(), any::<u32>(), word()).prop_map(|(lease, seconds, what)| Lease { lease, seconds, what });
        let state =
            (word(), any::<u32>()).prop_map(|(name, restarts)| ServiceState { name, running: true, ready: None, restarts, exit: None });
        let services = || proptest::collection::vec(state.clone(), 0..600);
        prop_oneof![
            (terminals(), proptest::collection::vec(lease(), 0..99), services()).prop_map(|(terminals, leases, services)| Report::Hello {
                version: 1,
                terminals,
                leases,
                services
            }),
            (number(), number()).prop_map(|(request, process)| Report::Opened { request, process, found: false }),
            (number(), word()).prop_map(|(request, text)| Report::Failed { request, why: Failure::Other, text }),
            (number(), exit).prop_map(|(process, exit)| Report::Exited { process, exit }),
            (number(), terminals()).prop_map(|(request, terminals)| Report::Terminals { request, terminals }),
            number().prop_map(|request| Report::Connected { request }),
            (number(), number(), address.clone()).prop_map(|(request, listener, on)| Report::Listening { request, listener, on }),
            (number(), proptest::option::of(address)).prop_map(|(listener, from)| Report::Accepted { listener, from }),
            services().prop_map(|services| Report::Services { services }),
            lease().prop_map(|lease| Report::KeepAsked { lease }),
            number().prop_map(|lease| Report::KeepEnded { lease }),
            number().prop_map(|question| Report::StatusAsked { question }),
        ]
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let kind = prop_oneof![Just(Kind::Pipe), Just(Kind::Stream), Just(Kind::Whole), Just(Kind::File), Just(Kind::Network)];
        prop_oneof![
            20 => (report(), proptest::collection::vec(kind, 0..4)).prop_map(|(report, kinds)| Deed::Says(report, kinds)),
            1 => proptest::collection::vec(any::<u8>(), 1..300).prop_map(Deed::Babbles),
            8 => Just(Deed::Asked),
        ]
    }

    /// A link, and the other end of its socket, which has said hello.
    async fn link() -> (Link, OwnedFd) {
        let hello = Report::Hello { version: 1, terminals: Vec::new(), leases: Vec::new(), services: Vec::new() };
        link_after(&wire::encode(&hello).unwrap()).await
    }

    /// The same after this hello.
    async fn link_after(hello: &[u8]) -> (Link, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        wire::send(&theirs, hello, &[]).unwrap();
        let link = Link::begin(ours.into(), ContainerId("box".to_owned()), 1, mpsc::channel(1).0).await.unwrap();
        (link, theirs)
    }

    /// Sends, once there is room.
    async fn send(socket: &OwnedFd, bytes: &[u8], beside: &[OwnedFd]) {
        let borrowed: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        while matches!(wire::send(socket, bytes, &borrowed), Err(WireError::WouldBlock)) {
            // It does not hear either: room is made by the gateway alone.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn suffer(deeds: Vec<Deed>) {
        let (link, theirs) = link().await;
        let mut asked = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Says(report, kinds) => {
                    let Ok(bytes) = wire::encode(&report) else { continue };
                    send(&theirs, &bytes, &kinds.into_iter().map(descriptor).collect::<Vec<_>>()).await;
                }
                Deed::Babbles(bytes) => send(&theirs, &bytes, &[]).await,
                Deed::Asked => {
                    let link = link.clone();
                    asked.push(tokio::spawn(async move {
                        let order = |request| Order::View { request, name: "x".to_owned(), size: Size::default() };
                        link.ask(Duration::from_secs(5), order).await.map(drop)
                    }));
                    tokio::task::yield_now().await;
                }
            }
        }
        drop(theirs);
        for one in asked {
            let _ = one.await.expect("an asker panicked");
        }
        link.gone().cancelled().await;
        tokio::task::yield_now().await;
        let news = &link.0.news;
        assert!(link.0.questions.lock().is_empty() && news.exits.lock().is_empty() && news.listeners.lock().is_empty());
        assert!(link.services().len() <= MOST_SERVICES && news.leases.kept().is_none_or(|left| left <= LONGEST_LEASE));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn no_init_is_too_strange(deeds in proptest::collection::vec(deed(), 0..40)) {
            // Time is the test's: what waits for a deadline meets it at once.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(suffer(deeds));
        }
    }

    /// The next order that this end is given.
    async fn next(socket: &OwnedFd) -> Order {
        loop {
            match wire::receive(socket, &mut vec![0; LONGEST_REPORT]) {
                Err(WireError::WouldBlock) => tokio::time::sleep(Duration::from_millis(1)).await,
                received => return received.unwrap().message,
            }
        }
    }

    #[tokio::test]
    async fn an_init_that_is_newer_is_spoken_with_as_far_as_it_is_understood() {
        // CBOR by hand: a hello of a later version, with one field more.
        let hello = [0x82, 0, 0x85, VERSION as u8 + 7, 0x80, 0x80, 0x80, 0x61, b'x'];
        let (link, theirs) = link_after(&hello).await;
        assert_eq!(next(&theirs).await, Order::Welcome { version: VERSION });
        // A report of another kind, and beside it what has to be closed.
        for _ in 0..3 {
            send(&theirs, &[0x82, 0x18, 200, 0x82, 1, 0x61, b'x'], &[descriptor(Kind::Pipe)]).await;
        }
        let asked = tokio::spawn({
            let link = link.clone();
            async move { link.ask(Duration::from_secs(20), |request| Order::List { request }).await.map(|answered| answered.report) }
        });
        let Order::List { request } = next(&theirs).await else { panic!("another order") };
        send(&theirs, &[0x82, 4, 0x83, request as u8, 0x80, 0x61, b'x'], &[]).await;
        assert_eq!(asked.await.unwrap().unwrap(), Report::Terminals { request, terminals: Vec::new() });
        assert!(!link.gone().is_cancelled());
    }

    #[tokio::test]
    async fn an_init_is_given_no_order_that_it_does_not_know() {
        // One from before the first version: it stands to all orders as any init does to those that come after it.
        let (link, theirs) = link_after(&[0x82, 0, 0x84, 0, 0x80, 0x80, 0x80]).await;
        assert_eq!(next(&theirs).await, Order::Welcome { version: 0 });
        let refused = link.ask(Duration::from_secs(3600), |request| Order::List { request }).await.map(|_| ());
        assert!(matches!(refused, Err(AttachError::Unsupported(_))), "{refused:?}");
        assert!(matches!(link.say(Order::HangUp { process: 1 }).await, Err(AttachError::Unsupported(_))));
        assert!(!link.gone().is_cancelled() && link.0.questions.lock().is_empty());
        drop(link);
        assert!(matches!(wire::receive::<Order>(&theirs, &mut [0; 64]), Err(WireError::WouldBlock)), "it was told nothing");
    }

    #[tokio::test]
    async fn who_says_much_is_heard_little() {
        let (_link, theirs) = link().await;
        let state = ServiceState { name: "x".repeat(60_000), running: true, ready: None, restarts: 0, exit: None };
        let long = wire::encode(&Report::Services { services: vec![state] }).unwrap();
        let (mut sent, end) = (0, Instant::now() + Duration::from_millis(2500));
        while Instant::now() < end {
            match wire::send(&theirs, &long, &[]) {
                Ok(()) => sent += long.len(),
                Err(WireError::WouldBlock) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(why) => panic!("{why}"),
            }
        }
        assert!(sent <= 4 * NEWS_BYTES, "{sent} bytes in two seconds and a half");
    }

    #[tokio::test]
    async fn ends_that_nobody_waits_for_make_room() {
        let news = News::default();
        for process in 0..3 * MOST_PROCESSES as u64 {
            news.watch_exit(process).unwrap();
        }
        let _held: Vec<_> = (0..2 * MOST_PROCESSES as u64).filter_map(|process| news.watch_exit(process).ok()).collect();
        assert!(news.exits.lock().len() <= MOST_PROCESSES && news.watch_exit(u64::MAX).is_err());
    }
}
