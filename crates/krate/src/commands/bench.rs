//! `krate bench`.

use crate::bench::{self, Row, Server, Target};
use crate::cli::Bench;
use crate::ui::{Explain, Outcome, Steps, say};

pub async fn run(args: Bench) -> Outcome<()> {
    let steps = Steps::new();
    let step = steps.begin("Measuring");
    let progress = |name: &str| step.note(name);
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
    let mut rows = Vec::new();
    match &args.kubeconfig {
        Some(path) => {
            let target = Target::of(path, args.pid.clone())?;
            rows.extend(bench::run_all(&target, &args.image, &wanted, &progress).await?);
            rows.extend(memory(&target));
        }
        // Without a kubeconfig, servers of our own are started for it and ended afterwards.
        None => {
            let dir =
                |what: &str| std::env::temp_dir().join(format!("krate-bench-{}-{what}", std::process::id()));
            rows.extend(bench::one_node(&dir("node"), &wanted, &progress).await?);
            let server = Server::start(&dir("server"), &[])?;
            rows.push(Row::boot("boot of a control plane to ready", server.boot));
            let target = server.target()?;
            let without_node = |name: &str| wanted(name) && !bench::needs_node(name);
            rows.extend(bench::run_all(&target, &args.image, &without_node, &progress).await?);
            rows.extend(memory(&target));
            drop(server);
            rows.extend(bench::schedule_alone(&dir("alone"), &wanted, &progress).await?);
        }
    }
    step.done();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&rows).explain("internal error", "")?);
    } else {
        say!("{}", bench::table(&rows).trim_end());
    }
    Ok(())
}

fn memory(target: &Target) -> Option<Row> {
    let resident = target.resident() >> 20;
    (resident > 0).then(|| Row::remark("memory after this work", format!("{resident} MiB resident")))
}
