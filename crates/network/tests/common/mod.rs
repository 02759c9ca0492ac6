//! Network namespaces that a test makes for itself. A namespace lives as long as its file descriptor: it
//! is gone with the test, however the test ends. Nothing is mounted, nothing of the machine's own network
//! is touched.

#![allow(dead_code, reason = "each test uses its part")]

pub mod sctp;

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Whether this process may make namespaces; says so if a test must be skipped.
pub fn may_make_namespaces() -> bool {
    let may = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap();
    if !may {
        eprintln!("skipped: network namespaces need root");
    }
    may
}

#[derive(Clone)]
pub struct Ns(Arc<File>);

impl Ns {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let ns = Self(Arc::new(made.join().unwrap()));
        ns.sh("ip link set lo up");
        ns
    }

    /// A path at which others can open the namespace.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Runs something on a thread inside the namespace.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = self.0.clone();
        let thread = std::thread::spawn(move || {
            setns(&*file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a future on a runtime whose only thread is inside the namespace.
    pub fn block_on<T, F, Fut>(&self, make: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T>,
    {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { make().await })
        })
    }

    /// Runs a program's words inside the namespace; it must succeed.
    pub fn sh(&self, line: &str) -> String {
        let words = line.to_owned();
        let output = self.run(move || Command::new("sh").args(["-ec", &words]).output().unwrap());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Joins two namespaces by a veth pair with these addresses (with prefix length).
    pub fn join(&self, name: &str, address: &str, other: &Ns, other_name: &str, other_address: &str) {
        self.sh(&format!(
            "ip link add {name} type veth peer name {other_name} netns /proc/{}/fd/{}",
            std::process::id(),
            other.0.as_raw_fd()
        ));
        self.sh(&format!("ip addr add {address} dev {name}; ip link set {name} up"));
        other.sh(&format!("ip addr add {other_address} dev {other_name}; ip link set {other_name} up"));
    }

    /// Gives an interface one more address; it is usable at once.
    pub fn address(&self, name: &str, address: &str) {
        self.sh(&format!("ip addr add {address} dev {name} nodad"));
    }

    /// A TCP server that greets with its name and the peer's address, then echoes, until the test ends.
    pub fn serve_tcp(&self, port: u16, name: &'static str) {
        self.run(move || {
            let listener = std::net::TcpListener::bind(("::", port)).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    std::thread::spawn(move || {
                        use std::io::Write;
                        let peer = stream.peer_addr().unwrap().ip().to_canonical();
                        writeln!(stream, "{name} {peer}").unwrap();
                        let mut input = stream.try_clone().unwrap();
                        let _ = std::io::copy(&mut input, &mut stream);
                    });
                }
            });
        });
    }

    /// A UDP server that answers every datagram with its name.
    pub fn serve_udp(&self, port: u16, name: &'static str) {
        self.run(move || {
            let socket = std::net::UdpSocket::bind(("::", port)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 1500];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), peer);
                }
            });
        });
    }

    /// Connects and reads the greeting: the server's name, and the address that it saw.
    pub fn greet(&self, to: &str) -> std::io::Result<(String, IpAddr)> {
        self.connect(to).map(|(_, name, seen)| (name, seen))
    }

    /// Like [`greet`](Self::greet), and keeps the connection.
    pub fn connect(&self, to: &str) -> std::io::Result<(std::net::TcpStream, String, IpAddr)> {
        let to: std::net::SocketAddr = to.parse().unwrap();
        self.run(move || {
            use std::io::{BufRead, BufReader};
            // The longest that a failure may take, not something that a test waits for.
            let limit = std::time::Duration::from_secs(5);
            let stream = std::net::TcpStream::connect_timeout(&to, limit)?;
            stream.set_read_timeout(Some(limit))?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            let (name, seen) = line.trim().split_once(' ').ok_or(std::io::ErrorKind::UnexpectedEof)?;
            Ok((stream, name.to_owned(), seen.parse().unwrap()))
        })
    }

    /// Sends a datagram and returns the answer.
    pub fn ask_udp(&self, to: &str) -> std::io::Result<String> {
        let to: std::net::SocketAddr = to.parse().unwrap();
        self.run(move || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = std::net::UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
            socket.connect(to)?;
            socket.send(b"hello")?;
            let mut buffer = [0; 1500];
            let n = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
        })
    }
}
