//! The program inside the tests' containers. Static, so that an image needs nothing else.
//!
//! Its arguments are commands, each with its own arguments, separated by `+` and carried out in order:
//! `probe print hello + exit 3`.

use nix::sys::signal::{SigSet, Signal};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    for command in args.split(|arg| arg == "+") {
        if let Some((name, args)) = command.split_first()
            && let Err(error) = run(name, args)
        {
            eprintln!("{name}: {error}");
            std::process::exit(1);
        }
    }
}

fn run(name: &str, args: &[String]) -> std::io::Result<()> {
    let arg = |index: usize| args.get(index).map_or("", String::as_str);
    let mut out = std::io::stdout();
    match name {
        "print" => writeln!(out, "{}", args.join(" "))?,
        "err" => eprintln!("{}", args.join(" ")),
        "partial" => {
            write!(out, "{}", "x".repeat(arg(0).parse().unwrap_or(0)))?;
            out.flush()?;
        }
        "exit" => std::process::exit(arg(0).parse().unwrap_or(1)),
        // Until SIGTERM, then politely.
        "wait" => {
            wait_for(&[Signal::SIGTERM]);
            writeln!(out, "bye")?;
        }
        "stubborn" => {
            wait_for(&[Signal::SIGUSR1]);
        }
        "wait-for" => {
            wait_for(&[arg(0).parse().map_err(|_| std::io::Error::other("no such signal"))?]);
            writeln!(out, "got {}", arg(0))?;
        }
        "cat" => std::io::copy(&mut std::io::stdin(), &mut out).map(drop)?,
        "file" => out.write_all(&std::fs::read(arg(0))?)?,
        "write" => std::fs::write(arg(0), arg(1))?,
        "ls" => {
            let mut names: Vec<_> = std::fs::read_dir(arg(0))?.flatten().map(|e| e.file_name()).collect();
            names.sort();
            for name in names {
                writeln!(out, "{}", name.display())?;
            }
        }
        "env" => std::env::vars().try_for_each(|(key, value)| writeln!(out, "{key}={value}"))?,
        "cwd" => writeln!(out, "{}", std::env::current_dir()?.display())?,
        "status" => writeln!(out, "{}", status(arg(0))?)?,
        "pid" => writeln!(out, "{}", std::process::id())?,
        "eat" => eat(arg(0).parse().unwrap_or(1)),
        "mknod" => {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            mknod(arg(0), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 3))?;
        }
        "tty" => {
            use std::io::IsTerminal;
            writeln!(out, "{}", std::io::stdin().is_terminal())?;
        }
        "size" => writeln!(out, "{}", terminal_size())?,
        "size-change" => {
            wait_for(&[Signal::SIGWINCH]);
            writeln!(out, "{}", terminal_size())?;
        }
        "echo-server" => serve(arg(0).parse().unwrap_or(0))?,
        "orphan" => drop(std::process::Command::new("/proc/self/exe").args(["stubborn"]).spawn()?),
        "keyctl" => writeln!(out, "{}", errno_of_keyctl())?,
        other => return Err(std::io::Error::other(format!("no command {other}"))),
    }
    out.flush()
}

fn wait_for(signals: &[Signal]) {
    let mut set = SigSet::empty();
    signals.iter().for_each(|signal| set.add(*signal));
    // The first process of a namespace ignores what it does not handle.
    set.thread_block().expect("block signals");
    println!("ready");
    std::io::stdout().flush().expect("stdout");
    set.wait().expect("wait for a signal");
}

fn status(key: &str) -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(line.unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" "))
}

fn eat(mebibytes: usize) {
    let mut all = Vec::new();
    for _ in 0..mebibytes {
        let mut block = vec![0u8; 1 << 20];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        all.push(std::hint::black_box(block));
    }
    println!("ate {}", all.len());
}

fn terminal_size() -> String {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    #[allow(unsafe_code)]
    // SAFETY: the structure is writable.
    unsafe {
        libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size);
    }
    format!("{}x{}", size.ws_col, size.ws_row)
}

fn errno_of_keyctl() -> i32 {
    #[allow(unsafe_code)]
    // SAFETY: asks for the id of a keyring; no memory arguments.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) };
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

/// Sends back what it gets, one connection after the other.
fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut buffer = [0; 1024];
        while let Ok(n) = stream.read(&mut buffer) {
            if n == 0 || stream.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
    }
    Ok(())
}
