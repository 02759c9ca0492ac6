//! The processes of a pod from their launch to their end: what they report, their exits, the pod's end.

use super::{Pending, Purpose, Server, kill_session};
use crate::shim::container::Container;
use crate::shim::launch::{Launch, Report};
use crate::shim::protocol::{Answer, Failure};
use crate::shim::spec::{ContainerSpec, EXITED_FILE, Exited, PidNamespace, STARTED_FILE, Started};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::OwnedFd;

impl Server {
    /// A launched child has spoken, or has become its program.
    pub(super) fn hear(&mut self, pid: i32) {
        let Some(index) = self.launches.iter().position(|pending| pending.launch.pid == pid) else { return };
        let report = self.launches[index].launch.hear();
        if matches!(report, Report::Nothing) {
            return;
        }
        let Pending { launch, purpose, connection } = self.launches.swap_remove(index);
        if matches!(report, Report::Failed(_)) {
            // It is about to exit; once it is gone its control group can be removed at once.
            kill_session(pid);
            let _ = waitpid(Pid::from_raw(pid), None);
        }
        match (report, purpose) {
            (Report::Failed(message), Purpose::Container(spec)) => {
                let what = "unable to start container process: error during container init";
                self.never_ran(connection, &spec.id, format!("{what}: {message}"));
            }
            (Report::Failed(message), Purpose::Exec { .. }) => {
                let message = format!("unable to start container process: {message}");
                self.answer(connection, &Answer::Failed { kind: Failure::Start, message }, Vec::new());
            }
            (_, Purpose::Container(spec)) => self.container_runs(*spec, launch, connection),
            (_, Purpose::Exec { tty }) => {
                let terminal: Vec<OwnedFd> = launch.ends.terminal.into_iter().filter(|_| tty).collect();
                self.execs.insert(pid, connection);
                let started = Started { pid, at: self.now() };
                self.answer(connection, &Answer::Started(started), terminal);
                if !self.connections.contains_key(&connection) {
                    kill_session(pid);
                }
            }
        }
    }

    pub(super) fn container_runs(&mut self, spec: ContainerSpec, launch: Launch, connection: u64) {
        let id = spec.id.clone();
        let started = Started { pid: launch.pid, at: self.now() };
        let group = self.hierarchies.group(&spec.cgroup);
        let container = match Container::new(spec, launch.pid, group, launch.ends) {
            Ok(container) => container,
            Err(error) => {
                kill_session(launch.pid);
                let message = format!("hold the container's streams: {error}");
                return self.answer(
                    connection,
                    &Answer::Failed { kind: Failure::Internal, message },
                    Vec::new(),
                );
            }
        };
        self.record(&id, STARTED_FILE, &started);
        self.containers.insert(id.clone(), container);
        self.tell_watchers(&Answer::Running { container: id, started });
        self.answer(connection, &Answer::Started(started), Vec::new());
    }

    /// Every child that has ended.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Err(Errno::EINTR) => continue,
                _ => return,
            };
            self.hear(pid);
            if pid == self.pause {
                // The pod's namespaces are gone; nothing of it can go on.
                self.kill_all();
                self.pause = 0;
            } else if let Some(connection) = self.execs.remove(&pid) {
                self.answer(connection, &Answer::Exit { code }, Vec::new());
            } else if let Some(id) =
                self.containers.iter().find(|(_, c)| c.pid == pid).map(|(id, _)| id.clone())
            {
                self.container_ended(&id, code);
            }
        }
    }

    pub(super) fn container_ended(&mut self, id: &str, code: i32) {
        let now = self.now();
        let Some(mut container) = self.containers.remove(id) else { return };
        if container.spec.pid != PidNamespace::Own {
            container.group.kill();
        }
        container.finish(now);
        let oom_killed = code != 0 && container.group.oom_kills() > 0;
        let exited = Exited { code, oom_killed, at: now, ..Exited::default() };
        self.record(id, EXITED_FILE, &exited);
        for mut attachment in std::mem::take(&mut container.attachments) {
            attachment.ended = Some(code);
            self.leaving.push(attachment);
        }
        self.tell_watchers(&Answer::Event { container: id.to_owned(), exited });
        self.flush_clients("");
    }

    /// Recorded here too, because who asked may be gone.
    pub(super) fn never_ran(&mut self, connection: u64, id: &str, message: String) {
        let exited = Exited::not_started(&message, self.now());
        self.record(id, EXITED_FILE, &exited);
        self.answer(connection, &Answer::Failed { kind: Failure::Start, message }, Vec::new());
        self.tell_watchers(&Answer::Event { container: id.to_owned(), exited });
    }

    pub(super) fn kill_all(&mut self) {
        for container in self.containers.values() {
            container.group.kill();
            let _ = kill(Pid::from_raw(container.pid), Signal::SIGKILL);
        }
        for pending in &self.launches {
            kill_session(pending.launch.pid);
        }
    }

    pub(super) fn finish_shutdown(&mut self) {
        if !self.containers.is_empty() || !self.launches.is_empty() {
            return;
        }
        let Some(connection) = self.shutdown else {
            self.done = self.pause == 0;
            return;
        };
        if self.pause != 0 {
            let _ = kill(Pid::from_raw(self.pause), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(self.pause), None);
            self.pause = 0;
        }
        self.answer(connection, &Answer::Done, Vec::new());
        self.done = true;
    }
}
