//! The faults of probes and lifecycle handlers.

use crate::behaviour::check::{self, Check};
use crate::behaviour::fill::{items, str_of};
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodOS, Probe, SleepAction,
    TCPSocketAction,
};

const ONE_HANDLER: &str = "may not specify more than 1 handler type";

/// The handlers that a probe or a hook can have.
#[derive(Default)]
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

pub fn liveness(errors: &mut Errors, path: &Path, probe: Option<&Probe>) {
    let Some(probe) = probe else { return };
    common(errors, path, probe);
    succeeds_once(errors, path, probe);
}

pub fn startup(errors: &mut Errors, path: &Path, probe: Option<&Probe>) {
    liveness(errors, path, probe);
}

pub fn readiness(errors: &mut Errors, path: &Path, probe: Option<&Probe>) {
    let Some(probe) = probe else { return };
    common(errors, path, probe);
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let path = path.child("terminationGracePeriodSeconds");
        errors.invalid(&path, &seconds, "must not be set for readinessProbes");
    }
}

fn succeeds_once(errors: &mut Errors, path: &Path, probe: &Probe) {
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.invalid(&path.child("successThreshold"), &threshold, "must be 1");
    }
}

fn common(errors: &mut Errors, path: &Path, probe: &Probe) {
    let given = Handlers {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handlers(errors, path, &given, None);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.not_negative(&path.child(field), value.map(i64::from));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        let path = path.child("terminationGracePeriodSeconds");
        errors.invalid(&path, &seconds, "must be greater than 0");
    }
}

pub fn lifecycle(
    errors: &mut Errors,
    path: &Path,
    lifecycle: Option<&Lifecycle>,
    grace: Option<i64>,
    os: Option<&PodOS>,
) {
    let Some(lifecycle) = lifecycle else { return };
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            handlers(errors, &path.child(field), &of_hook(hook), grace);
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        stop_signal(errors, &path.child("stopSignal"), signal, os);
    }
}

fn of_hook(hook: &LifecycleHandler) -> Handlers<'_> {
    Handlers {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        tcp_socket: hook.tcp_socket.as_ref(),
        grpc: None,
        sleep: hook.sleep.as_ref(),
    }
}

fn handlers(errors: &mut Errors, path: &Path, given: &Handlers<'_>, grace: Option<i64>) {
    let mut count = 0;
    let mut first = |errors: &mut Errors, field: &str| {
        count += 1;
        if count > 1 {
            errors.forbidden(&path.child(field), ONE_HANDLER);
        }
        count == 1
    };
    if let Some(exec) = given.exec
        && first(errors, "exec")
        && items(&exec.command).is_empty()
    {
        errors.push(Error::required(&path.child("exec").child("command"), ""));
    }
    if let Some(get) = given.http_get
        && first(errors, "httpGet")
    {
        http_get(errors, &path.child("httpGet"), get);
    }
    if let Some(tcp) = given.tcp_socket
        && first(errors, "tcpSocket")
    {
        check::port(errors, &path.child("tcpSocket").child("port"), &tcp.port);
    }
    if let Some(grpc) = given.grpc
        && first(errors, "grpc")
    {
        check::port_number(errors, &path.child("grpc").child("port"), grpc.port);
    }
    if let Some(sleep) = given.sleep
        && first(errors, "sleep")
        && let Some(grace) = grace
        && (sleep.seconds < 0 || sleep.seconds > grace)
    {
        let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(&path.child("sleep"), &sleep.seconds, &text);
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a handler type"));
    }
}

fn http_get(errors: &mut Errors, path: &Path, get: &HTTPGetAction) {
    errors.required(&path.child("path"), str_of(&get.path));
    check::port(errors, &path.child("port"), &get.port);
    errors.one_of(&path.child("scheme"), str_of(&get.scheme), &["HTTP", "HTTPS"]);
    for header in items(&get.http_headers) {
        errors.faults(&path.child("httpHeaders"), &header.name, names::http_header_name(&header.name));
    }
}

fn stop_signal(errors: &mut Errors, path: &Path, signal: &str, os: Option<&PodOS>) {
    match os.map(|os| os.name.as_str()) {
        None => errors.forbidden(path, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => errors.one_of(path, signal, &["SIGKILL", "SIGTERM"]),
        Some("linux") => {
            let all = signals();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            errors.one_of(path, signal, &all);
        }
        Some(_) => {}
    }
}

/// Every signal of Linux by name, sorted.
fn signals() -> Vec<String> {
    let named = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    let mut all: Vec<String> = named.iter().map(|name| format!("SIG{name}")).collect();
    all.extend((1..=15).map(|i| format!("SIGRTMIN+{i}")));
    all.extend((1..=14).map(|i| format!("SIGRTMAX-{i}")));
    all.sort();
    all
}
