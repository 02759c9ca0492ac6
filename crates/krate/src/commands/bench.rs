//! `krate bench`.

use crate::bench::{self, Row, Server, Target};
use crate::cli::Bench;
use crate::ui::{Explain, Outcome, Steps, say};
use std::path::Path;

pub async fn run(args: Bench) -> Outcome<()> {
    let steps = Steps::new();
    let step = steps.begin("Measuring");
    let progress = |name: &str| step.note(name);
    let mut rows = Vec::new();
    // Without a kubeconfig, a control plane of our own is started for it and ended afterwards.
    let own = match &args.kubeconfig {
        Some(_) => None,
        None => {
            let dir = std::env::temp_dir().join(format!("krate-bench-{}", std::process::id()));
            let server = Server::start(&dir, &[])?;
            rows.push(
                Row::total("boot of a control plane to ready", 1, server.boot, None)
                    .noting(format!("{:.0} ms", server.boot.as_secs_f64() * 1e3)),
            );
            Some(server)
        }
    };
    let target = match (&own, &args.kubeconfig) {
        (Some(server), _) => server.target()?,
        (None, path) => Target::of(path.as_deref().unwrap_or(Path::new("")), args.pid.clone())?,
    };
    rows.extend(bench::run_all(&target, args.only.as_deref(), &progress).await?);
    if !target.pids.is_empty() {
        let resident = target.resident() >> 20;
        rows.push(Row::remark("memory after this work", format!("{resident} MiB resident")));
    }
    if own.is_some() {
        drop(own);
        let dir = std::env::temp_dir().join(format!("krate-bench-{}-alone", std::process::id()));
        let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
        rows.extend(bench::schedule_alone(&dir, &wanted, &progress).await?);
    }
    step.done();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&rows).explain("internal error", "")?);
    } else {
        say!("{}", bench::table(&rows).trim_end());
    }
    Ok(())
}
