//! The messages between a container's init and its gateway.
//!
//! init dials. Its first message is [`Report::Hello`]; the gateway answers [`Order::Welcome`], or hangs up on a stranger. From then on the
//! gateway sends [`Order`]s and init [`Report`]s. What an order asks for is answered by a report with the same `request`; everything else
//! that init says is news. File descriptors travel beside the message that names them, in the order it names them.
//!
//! **Versions.** Messages are CBOR with numbered fields. A field that is unknown is skipped, and an option that is missing is `None`, so
//! options may be added at any time. Numbers are never used again. A new *variant* needs a new [`VERSION`]. An order that has it, wherever
//! within, says so in [`Order::since`], and is given only to an init that has said it knows it: an init may be older than its gateway by months.
//! An init that is newer than its gateway answers in words of the version that the welcome names. What a peer does not know nevertheless it
//! passes over, and goes on with what it does know.
//!
//! Everything here is bounded: a message by [`MAX_MESSAGE`], its descriptors by [`MAX_DESCRIPTORS`], and what is within by the message.

use minicbor::{Decode, Encode};

/// The newest version of the words in this file.
pub const VERSION: u32 = 1;

/// Longest message, in bytes. Unix sockets keep a message whole, and refuse one that is larger than their buffer, which by default has
/// 208 KiB on Linux. Enough for a command of 128 KiB, the most that the kernel takes as one argument, and its environment.
pub const MAX_MESSAGE: usize = 192 * 1024;

/// Most descriptors beside one message: a process's three.
pub const MAX_DESCRIPTORS: usize = 3;

/// Where init finds its gateway, seen inside the container.
pub const SOCKET: &str = "/.innkeeper/socket";

/// Where init itself is, seen inside the container. Beside it are the names under which people in the container call it.
pub const PROGRAM: &str = "/.innkeeper/innkeeper-init";

/// The directory of both.
pub const DIRECTORY: &str = "/.innkeeper";

/// The abstract socket on which init answers people in its container ([`Ask`]).
pub const LOCAL_SOCKET: &[u8] = b"innkeeper";

/// What the gateway asks of init.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Order {
    /// You are who you should be. Nothing else comes before it.
    #[n(0)]
    Welcome {
        /// The version that both speak from here on.
        #[n(0)]
        version: u32,
    },
    /// Open a process, or show the terminal of that name if there is one. Answered by [`Report::Opened`].
    #[n(1)]
    Open {
        /// Chosen by the gateway.
        #[n(0)]
        request: u64,
        /// What.
        #[n(1)]
        process: Process,
    },
    /// Show a terminal that is there: one more viewer. Answered by [`Report::Opened`].
    #[n(2)]
    View {
        /// Chosen by the gateway.
        #[n(0)]
        request: u64,
        /// Its name.
        #[n(1)]
        name: String,
        /// The viewer's size.
        #[n(2)]
        size: Size,
    },
    /// Which terminals are there? Answered by [`Report::Terminals`].
    #[n(3)]
    List {
        /// Chosen by the gateway.
        #[n(0)]
        request: u64,
    },
    /// A terminal has another size.
    #[n(4)]
    Resize {
        /// Which.
        #[n(0)]
        process: u64,
        /// The size.
        #[n(1)]
        size: Size,
    },
    /// Send a signal to the foreground process group of its terminal, or to its own group.
    #[n(5)]
    Signal {
        /// Which.
        #[n(0)]
        process: u64,
        /// The signal's number on Linux.
        #[n(1)]
        signal: u8,
    },
    /// Whoever it was for has left, and does not come back: tell it as a terminal that is hung up would.
    #[n(6)]
    HangUp {
        /// Which.
        #[n(0)]
        process: u64,
    },
    /// Connect to something in the container. Answered by [`Report::Connected`].
    #[n(7)]
    Connect {
        /// Chosen by the gateway.
        #[n(0)]
        request: u64,
        /// To what.
        #[n(1)]
        to: Address,
    },
    /// Listen in the container. Answered by [`Report::Listening`], and each connection is a [`Report::Accepted`].
    #[n(8)]
    Listen {
        /// Chosen by the gateway.
        #[n(0)]
        request: u64,
        /// Where.
        #[n(1)]
        on: Endpoint,
    },
    /// Listen there no more.
    #[n(9)]
    Unlisten {
        /// Which.
        #[n(0)]
        listener: u64,
    },
    /// Run these services, and no others: those of the same name and content go on as they are.
    #[n(10)]
    Serve {
        /// All of them.
        #[n(0)]
        services: Vec<Service>,
    },
    /// What have services said? Answered by [`Report::Connected`], with a socket from which it is read to its end.
    /// Whole lines, each after `[name] ` and the time at which it ended. Whoever shuts down her side of the socket has left.
    #[n(11)]
    Logs {
        /// Chosen by the gateway.
        #[n(0)]
        request: u64,
        /// One service's, or all.
        #[n(1)]
        service: Option<String>,
        /// Whether to go on with what they say from now on.
        #[n(2)]
        follow: bool,
    },
    /// The answer to [`Report::KeepAsked`].
    #[n(12)]
    KeepAnswer {
        /// Which.
        #[n(0)]
        lease: u64,
        /// For how long, in seconds; 0: not at all.
        #[n(1)]
        seconds: u32,
        /// What the person is told beside it.
        #[n(2)]
        words: Option<String>,
    },
    /// The answer to [`Report::StatusAsked`].
    #[n(13)]
    StatusAnswer {
        /// Which.
        #[n(0)]
        question: u64,
        /// What the person reads.
        #[n(1)]
        text: String,
    },
}

impl Order {
    /// The version of these words that an init must speak to know this order. Before the first one there was none.
    pub fn since(&self) -> u32 {
        match self {
            Self::Welcome { .. } => 0,
            Self::Open { .. }
            | Self::View { .. }
            | Self::List { .. }
            | Self::Resize { .. }
            | Self::Signal { .. }
            | Self::HangUp { .. }
            | Self::Connect { .. }
            | Self::Listen { .. }
            | Self::Unlisten { .. }
            | Self::Serve { .. }
            | Self::Logs { .. }
            | Self::KeepAnswer { .. }
            | Self::StatusAnswer { .. } => 1,
        }
    }
}

/// What init says to the gateway.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Report {
    /// I am here, and so is what I have. The first message.
    #[n(0)]
    Hello {
        /// The newest version it speaks.
        #[n(0)]
        version: u32,
        /// The terminals that are there.
        #[n(1)]
        terminals: Vec<Terminal>,
        /// The leases that are held.
        #[n(2)]
        leases: Vec<Lease>,
        /// The services that run.
        #[n(3)]
        services: Vec<ServiceState>,
    },
    /// The process is open. Beside it: for a terminal one socket, for another its standard input, output and error.
    #[n(1)]
    Opened {
        /// Which order.
        #[n(0)]
        request: u64,
        /// What it is called from now on.
        #[n(1)]
        process: u64,
        /// Whether it was there before.
        #[n(2)]
        found: bool,
    },
    /// What was asked for is not possible.
    #[n(2)]
    Failed {
        /// Which order.
        #[n(0)]
        request: u64,
        /// Why.
        #[n(1)]
        why: Failure,
        /// The same in words, for the log.
        #[n(2)]
        text: String,
    },
    /// A process has ended. A terminal's output is complete when its sockets end; what is in a pipe by now is all that counts.
    #[n(3)]
    Exited {
        /// Which.
        #[n(0)]
        process: u64,
        /// How.
        #[n(1)]
        exit: Exit,
    },
    /// All terminals.
    #[n(4)]
    Terminals {
        /// Which order.
        #[n(0)]
        request: u64,
        /// They.
        #[n(1)]
        terminals: Vec<Terminal>,
    },
    /// Connected. Beside it: the socket.
    #[n(5)]
    Connected {
        /// Which order.
        #[n(0)]
        request: u64,
    },
    /// Listening.
    #[n(6)]
    Listening {
        /// Which order.
        #[n(0)]
        request: u64,
        /// What it is called from now on.
        #[n(1)]
        listener: u64,
        /// Where it listens: the port that was chosen, the path that was made.
        #[n(2)]
        on: Address,
    },
    /// Somebody has connected to a listener. Beside it: the socket.
    #[n(7)]
    Accepted {
        /// Which listener.
        #[n(0)]
        listener: u64,
        /// From where; a Unix socket's peer has no address.
        #[n(1)]
        from: Option<Address>,
    },
    /// All services, whenever one of them has changed.
    #[n(8)]
    Services {
        /// They.
        #[n(0)]
        services: Vec<ServiceState>,
    },
    /// Somebody inside wants the workspace kept running.
    #[n(9)]
    KeepAsked {
        /// The lease.
        #[n(0)]
        lease: Lease,
    },
    /// She does not need it any more.
    #[n(10)]
    KeepEnded {
        /// Which lease.
        #[n(0)]
        lease: u64,
    },
    /// Somebody inside wants to know how her workspace stands.
    #[n(11)]
    StatusAsked {
        /// Chosen by init.
        #[n(0)]
        question: u64,
    },
}

/// A process to open.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct Process {
    /// What runs.
    #[n(0)]
    pub program: Program,
    /// With a terminal, or with pipes.
    #[n(1)]
    pub pty: Option<Pty>,
    /// Environment, beside init's own and what a login sets. Of a name twice the last counts.
    #[n(2)]
    pub env: Vec<Variable>,
    /// What a person reads before her shell's first prompt, unless there is a `.hushlogin` in her home.
    #[n(3)]
    pub greeting: Option<String>,
    /// The terminal's name, where it has one: it outlives those who watch it.
    #[n(4)]
    pub name: Option<String>,
    /// For how long, in seconds, a terminal without a name outlives those who watch it.
    #[n(5)]
    pub keep: u32,
    /// The home of a container that names none.
    #[n(6)]
    pub home: String,
}

/// What a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Program {
    /// The login shell, as a login shell.
    #[n(0)]
    #[default]
    LoginShell,
    /// A command line for the login shell's `-c`. Bytes, not UTF-8.
    #[n(1)]
    Command(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// The image's sftp-server.
    #[n(2)]
    Sftp,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Variable {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its value.
    #[n(1)]
    pub value: String,
}

/// A terminal to open a process with.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pty {
    /// `TERM`.
    #[n(0)]
    pub term: String,
    /// Its size from the first byte.
    #[n(1)]
    pub size: Size,
    /// Terminal modes by their RFC 4254 section 8 opcodes.
    #[n(2)]
    pub modes: Vec<Mode>,
}

/// One terminal mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Mode {
    /// RFC 4254 section 8.
    #[n(0)]
    pub opcode: u8,
    /// Its argument.
    #[n(1)]
    pub value: u32,
}

/// A terminal's size in characters; 0 is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Size {
    /// Columns.
    #[n(0)]
    pub columns: u16,
    /// Rows.
    #[n(1)]
    pub rows: u16,
}

/// A terminal that is there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Terminal {
    /// Its process.
    #[n(0)]
    pub process: u64,
    /// Its name: given when it was opened, or by init when nobody watched it any more. Empty for one that has always been watched.
    #[n(1)]
    pub name: String,
    /// How many watch it.
    #[n(2)]
    pub viewers: u32,
    /// For how many seconds nobody has.
    #[n(3)]
    pub alone: u32,
    /// In how many seconds it is hung up if nobody comes; `None`: never.
    #[n(4)]
    pub left: Option<u32>,
}

/// A reason to keep the workspace running, held by a process inside.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Lease {
    /// Chosen by init.
    #[n(0)]
    pub lease: u64,
    /// For how long it is wanted from now on, in seconds.
    #[n(1)]
    pub seconds: u32,
    /// The command that it is for. Untrusted text.
    #[n(2)]
    pub what: String,
}

/// Something to connect to, or where something listens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Address {
    /// A TCP port; `host` is an address, or a name as the container resolves it.
    #[n(0)]
    Tcp {
        /// Address or name.
        #[n(0)]
        host: String,
        /// Port; 0 to listen: any.
        #[n(1)]
        port: u16,
    },
    /// A Unix socket's path.
    #[n(1)]
    Unix {
        /// Absolute, or below the home.
        #[n(0)]
        path: String,
    },
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Endpoint {
    /// At an address. A socket that nobody listens on is replaced.
    #[n(0)]
    At {
        /// Which.
        #[n(0)]
        address: Address,
    },
    /// On a Unix socket of init's own choice that only the user can reach, for an agent.
    #[n(1)]
    Agent,
    /// On the first free port from 6010 on of the container's loopback, with a file of this X11 cookie beside it. The answer is two
    /// addresses in one: the port, and as its host the file's path.
    #[n(2)]
    X11 {
        /// `MIT-MAGIC-COOKIE-1`, usually.
        #[n(0)]
        protocol: String,
        /// The cookie.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        cookie: Vec<u8>,
    },
}

/// Why something was not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Failure {
    /// There is no such thing.
    #[n(0)]
    NotFound,
    /// Nobody listens there.
    #[n(1)]
    Refused,
    /// The container's user may not.
    #[n(2)]
    Denied,
    /// The address is taken.
    #[n(3)]
    Taken,
    /// As many as may be are there already, or the container has no process or descriptor left.
    #[n(4)]
    Exhausted,
    /// It took too long.
    #[n(5)]
    TimedOut,
    /// It cannot be asked for like this.
    #[n(6)]
    Invalid,
    /// Anything else.
    #[n(7)]
    Other,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Exit {
    /// With a status.
    #[n(0)]
    Status(#[n(0)] u8),
    /// By a signal of this number.
    #[n(1)]
    Signal(#[n(0)] u8),
}

/// Something that runs beside sessions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Service {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Program and arguments.
    #[n(1)]
    pub command: Vec<String>,
    /// Environment, beside init's own.
    #[n(2)]
    pub env: Vec<Variable>,
    /// Where it starts; the home otherwise.
    #[n(3)]
    pub directory: Option<String>,
    /// When it is started again.
    #[n(4)]
    pub restart: Restart,
    /// How it is found out whether it does its work.
    #[n(5)]
    pub ready: Option<Ready>,
}

/// When a service that has ended is started again, with a pause that doubles each time, from one second to a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Restart {
    /// Always.
    #[n(0)]
    Always,
    /// Unless it ended with status 0.
    #[n(1)]
    OnFailure,
    /// Never.
    #[n(2)]
    Never,
}

/// How it is found out whether a service does its work.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ready {
    /// By what.
    #[n(0)]
    pub by: Check,
    /// How often, in seconds.
    #[n(1)]
    pub every: u32,
    /// How long a check may take, in seconds.
    #[n(2)]
    pub timeout: u32,
    /// How many in a row must fail until it is not.
    #[n(3)]
    pub retries: u32,
    /// For how many seconds after its start failures do not count.
    #[n(4)]
    pub grace: u32,
    /// Whether it is then started again.
    #[n(5)]
    pub restart: bool,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Check {
    /// Something accepts connections on this port of the container's loopback.
    #[n(0)]
    Port(#[n(0)] u16),
    /// A program ends with status 0.
    #[n(1)]
    Command(#[n(0)] Vec<String>),
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ServiceState {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Whether it runs.
    #[n(1)]
    pub running: bool,
    /// Whether it does its work; `None`: nobody knows (yet).
    #[n(2)]
    pub ready: Option<bool>,
    /// How often it was started again.
    #[n(3)]
    pub restarts: u32,
    /// How it ended last.
    #[n(4)]
    pub exit: Option<Exit>,
}

/// What somebody in the container asks of init.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// Keep the workspace running for so long, at most until I hang up.
    #[n(0)]
    Keep {
        /// Seconds.
        #[n(0)]
        seconds: u32,
        /// The command that it is for.
        #[n(1)]
        what: String,
    },
    /// How does my workspace stand?
    #[n(1)]
    Status,
}

/// What she is told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It is kept for so long; 0: it is not.
    #[n(0)]
    Kept {
        /// Seconds.
        #[n(0)]
        seconds: u32,
        /// What there is to say beside it.
        #[n(1)]
        words: Option<String>,
    },
    /// How it stands.
    #[n(1)]
    Status {
        /// The whole text.
        #[n(0)]
        text: String,
    },
}
