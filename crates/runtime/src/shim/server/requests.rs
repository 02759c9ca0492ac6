//! What clients of the shim ask for, and the answers that need no waiting.

use super::{Pending, Purpose, Server, read_json};
use crate::kernel::process;
use crate::shim::attachment::Attachment;
use crate::shim::container::Container;
use crate::shim::launch::{self, Pod};
use crate::shim::protocol::{Answer, Failure, Request};
use crate::shim::spec::{CONTAINER_FILE, ContainerSpec, PidNamespace, ProcessSpec, SHM_FOLDER};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

impl Server {
    pub(super) fn request(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) {
        let result = match request {
            Request::Start { container } => self.start_container(id, &container).map(|()| None),
            Request::Exec { container, process, tty, stdin, stdout, stderr } => {
                self.exec(id, &container, &process, tty, [stdin, stdout, stderr], fds).map(|()| None)
            }
            Request::Attach { container, stdin, stdout, stderr } => {
                self.attach(id, &container, [stdin, stdout, stderr], fds).map(|()| None)
            }
            Request::Signal { container, signal, all } => self.signal(&container, signal, all).map(Some),
            Request::Resize { container, columns, rows } => self.resize(&container, columns, rows).map(Some),
            Request::ReopenLog { container } => self.running(&container).and_then(|container| {
                container
                    .reopen_log()
                    .map_err(|error| (Failure::Internal, format!("reopen the log: {error}")))?;
                Ok(Some(Answer::Done))
            }),
            Request::State => {
                let running = self.containers.iter().map(|(id, c)| (id.clone(), c.pid)).collect();
                Ok(Some(Answer::State { pause: self.pause, running }))
            }
            Request::Watch => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.watching = true;
                }
                Ok(Some(Answer::Done))
            }
            Request::Shutdown => {
                self.shutdown = Some(id);
                self.kill_all();
                Ok(None)
            }
        };
        match result {
            Ok(Some(answer)) => self.answer(id, &answer, Vec::new()),
            Ok(None) => {}
            Err((kind, message)) => self.answer(id, &Answer::Failed { kind, message }, Vec::new()),
        }
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, (Failure, String)> {
        let not_running = || (Failure::NotRunning, format!("container {id:?} is not running"));
        self.containers.get_mut(id).ok_or_else(not_running)
    }

    fn start_container(&mut self, connection: u64, id: &str) -> Result<(), (Failure, String)> {
        let known = |p: &Pending| matches!(&p.purpose, Purpose::Container(spec) if spec.id == id);
        if self.shutdown.is_some() || self.containers.contains_key(id) || self.launches.iter().any(known) {
            return Err((Failure::Internal, format!("container {id:?} cannot be started now")));
        }
        let path = self.container_folder(id).join(CONTAINER_FILE);
        let spec: ContainerSpec = read_json(&path).map_err(|error| (Failure::Internal, error))?;
        let target = match spec.pid {
            PidNamespace::Own | PidNamespace::Node => None,
            PidNamespace::Pod => Some(self.pause),
            PidNamespace::Target => Some(self.running(&spec.pid_target)?.pid),
        };
        let pod = Pod {
            hierarchies: &self.hierarchies,
            pause: self.pause,
            host_network: self.spec.host_network,
            host_ipc: self.spec.host_ipc,
            shm: Some(if self.spec.host_ipc {
                PathBuf::from("/dev/shm")
            } else {
                self.folder.join(SHM_FOLDER)
            }),
        };
        match launch::container(&spec, &self.hierarchies.group(&spec.cgroup), &pod, target) {
            Ok(launch) => {
                self.launches.push(Pending {
                    launch,
                    purpose: Purpose::Container(Box::new(spec)),
                    connection,
                });
            }
            Err(error) => {
                self.never_ran(connection, id, format!("unable to start container process: {error}"))
            }
        }
        Ok(())
    }

    fn exec(
        &mut self,
        connection: u64,
        id: &str,
        process: &ProcessSpec,
        tty: bool,
        wanted: [bool; 3],
        fds: Vec<OwnedFd>,
    ) -> Result<(), (Failure, String)> {
        let (pid, group) = self.running(id).map(|container| (container.pid, container.group.clone()))?;
        let streams = if tty { None } else { Some(three(wanted, fds)?) };
        let launch = launch::exec(process, &group, pid, streams).map_err(|error| (Failure::Start, error))?;
        self.launches.push(Pending { launch, purpose: Purpose::Exec { tty }, connection });
        Ok(())
    }

    fn attach(
        &mut self,
        id: u64,
        name: &str,
        wanted: [bool; 3],
        fds: Vec<OwnedFd>,
    ) -> Result<(), (Failure, String)> {
        let mut fds = fds.into_iter();
        let [stdin, stdout, stderr] = wanted.map(|wanted| if wanted { fds.next() } else { None });
        let container = self.running(name)?;
        let stdin = stdin.filter(|_| container.spec.stdin);
        let attachment = Attachment::new(id, stdin, stdout, stderr)
            .map_err(|error| (Failure::Internal, format!("attach: {error}")))?;
        container.attachments.push(attachment);
        self.answer(id, &Answer::Done, Vec::new());
        Ok(())
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<Answer, (Failure, String)> {
        let container = self.running(id)?;
        let signal =
            Signal::try_from(signal).map_err(|_| (Failure::Internal, format!("no signal {signal}")))?;
        if all && signal == Signal::SIGKILL {
            container.group.kill();
        }
        match kill(Pid::from_raw(container.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(Answer::Done),
            Err(error) => Err((Failure::Internal, format!("send {signal}: {error}"))),
        }
    }

    fn resize(&mut self, id: &str, columns: u16, rows: u16) -> Result<Answer, (Failure, String)> {
        if let Some(terminal) = &self.running(id)?.terminal {
            process::resize_terminal(terminal.as_fd(), columns, rows)
                .map_err(|error| (Failure::Internal, format!("resize the terminal: {error}")))?;
        }
        Ok(Answer::Done)
    }
}

fn three(wanted: [bool; 3], fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], (Failure, String)> {
    let mut fds = fds.into_iter();
    let mut next = |wanted: bool| -> io::Result<OwnedFd> {
        let given = if wanted { fds.next() } else { None };
        given.map_or_else(|| File::options().read(true).write(true).open("/dev/null").map(Into::into), Ok)
    };
    let [stdin, stdout, stderr] = wanted;
    let streams = (|| Ok([next(stdin)?, next(stdout)?, next(stderr)?]))();
    streams.map_err(|error: io::Error| (Failure::Internal, format!("open /dev/null: {error}")))
}
