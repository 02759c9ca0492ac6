//! A running container as its shim sees it: a process, its streams, its log and who is attached.

use super::attachment::{Attachment, nonblocking};
use super::log::{Lines, LogFile, Stream, timestamp};
use super::spec::ContainerSpec;
use crate::cgroup::Group;
use nix::errno::Errno;
use std::os::fd::OwnedFd;

const READ_BUFFER: usize = 64 << 10;
/// Reads of one stream in a row, so that a busy one does not starve the rest.
const READS_IN_A_ROW: usize = 16;
/// Input that waits for a container that does not read.
const MAX_INPUT: usize = 64 << 10;

/// An output stream until its end.
struct Output {
    fd: OwnedFd,
    lines: Lines,
}

pub struct Container {
    pub spec: ContainerSpec,
    pub pid: i32,
    pub group: Group,
    stdout: Option<Output>,
    stderr: Option<Output>,
    /// The writing end of its input; with a terminal the terminal itself.
    stdin: Option<OwnedFd>,
    input: Vec<u8>,
    /// Its input shall end when what is pending is through.
    input_ends: bool,
    pub terminal: Option<OwnedFd>,
    log: Option<LogFile>,
    pub attachments: Vec<Attachment>,
}

/// The shim's ends of a container's streams.
#[derive(Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

impl Container {
    pub fn new(spec: ContainerSpec, pid: i32, group: Group, ends: Ends) -> nix::Result<Self> {
        let log = spec.log_path.as_deref().map(LogFile::new).map(|mut log| {
            if let Err(error) = log.reopen() {
                eprintln!("shim: log of {}: {error}", spec.id);
            }
            log
        });
        let mut ends = ends;
        if let Some(terminal) = &ends.terminal {
            let duplicate = || terminal.try_clone().map_err(|_| Errno::EMFILE);
            (ends.stdin, ends.stdout) = (spec.stdin.then(duplicate).transpose()?, Some(duplicate()?));
        }
        for fd in [&ends.stdin, &ends.stdout, &ends.stderr].into_iter().flatten() {
            nonblocking(fd)?;
        }
        let output = |fd: OwnedFd| Output { fd, lines: Lines::default() };
        Ok(Self {
            spec,
            pid,
            group,
            stdout: ends.stdout.map(output),
            stderr: ends.stderr.map(output),
            stdin: ends.stdin,
            input: Vec::new(),
            input_ends: false,
            terminal: ends.terminal,
            log,
            attachments: Vec::new(),
        })
    }

    pub fn output(&self, stream: Stream) -> Option<&OwnedFd> {
        let output = if stream == Stream::Stdout { &self.stdout } else { &self.stderr };
        output.as_ref().map(|output| &output.fd)
    }

    /// Where to wait for room for input, if there is input.
    pub fn blocked_input(&self) -> Option<&OwnedFd> {
        self.stdin.as_ref().filter(|_| !self.input.is_empty())
    }

    /// Whether more input may be taken from who is attached.
    pub fn takes_input(&self) -> bool {
        self.input.len() < MAX_INPUT
    }

    /// Moves what the container has written to its log and to who is attached. Returns the connections of
    /// those who are gone.
    pub fn drain(&mut self, stream: Stream, now: i64, to_the_end: bool) -> Vec<u64> {
        let output = if stream == Stream::Stdout { &mut self.stdout } else { &mut self.stderr };
        let (mut buffer, mut gone) = (vec![0; READ_BUFFER], Vec::new());
        let mut reads = 0;
        while let Some(open) = output.as_mut().filter(|_| to_the_end || reads < READS_IN_A_ROW) {
            reads += 1;
            let mut lines = Vec::new();
            match nix::unistd::read(&open.fd, &mut buffer) {
                Ok(n) if n > 0 => {
                    open.lines.push(&buffer[..n], stream, &timestamp(now), &mut lines);
                    self.attachments.retain_mut(|attachment| {
                        let stays = attachment.push(&buffer[..n], stream);
                        gone.extend((!stays).then_some(attachment.connection));
                        stays
                    });
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                // The end; a terminal says it with EIO.
                _ => {
                    open.lines.finish(stream, &timestamp(now), &mut lines);
                    *output = None;
                }
            }
            if let Some(log) = &mut self.log {
                log.write(&lines);
            }
        }
        gone
    }

    /// After the exit: everything that is still in the pipes, and unfinished lines.
    pub fn finish(&mut self, now: i64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(stream, now, true);
            let output = if stream == Stream::Stdout { &mut self.stdout } else { &mut self.stderr };
            let mut lines = Vec::new();
            if let Some(mut open) = output.take() {
                open.lines.finish(stream, &timestamp(now), &mut lines);
            }
            if let Some(log) = &mut self.log {
                log.write(&lines);
            }
        }
    }

    pub fn reopen_log(&mut self) -> std::io::Result<()> {
        self.log.as_mut().map_or(Ok(()), LogFile::reopen)
    }

    /// Reads from an attached client. `false` at the end of its input.
    pub fn read_input(&mut self, attachment: usize) -> bool {
        let Some(Some(fd)) = self.attachments.get(attachment).map(|a| a.stdin.as_ref()) else { return false };
        let mut buffer = vec![0; MAX_INPUT];
        match nix::unistd::read(fd, &mut buffer) {
            Ok(n) if n > 0 => {
                self.input.extend_from_slice(&buffer[..n]);
                self.write_input();
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            _ => {
                self.attachments[attachment].stdin = None;
                self.client_input_ended();
                false
            }
        }
    }

    /// With `stdinOnce` the first client's end is the container's end of input.
    pub fn client_input_ended(&mut self) {
        if self.spec.stdin_once {
            self.input_ends = true;
            self.write_input();
        }
    }

    pub fn write_input(&mut self) {
        while let Some(fd) = self.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            match nix::unistd::write(fd, &self.input) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    self.stdin = None;
                    self.input.clear();
                }
            }
        }
        if self.input_ends {
            self.stdin = None;
        }
    }
}
