//! A control plane in memory on a loopback port, for trying clients by hand: prints a kubeconfig's path.
//!
//! `serve [PATH] [--nodes N]`: where to write the kubeconfig, and how many hollow nodes to add.

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    krate_base::telemetry::init("info");
    let cluster = krate_testing::ControlPlane::builder().https().start().await?;
    let (path, nodes) = arguments()?;
    std::fs::write(&path, cluster.kubeconfig().ok_or("no kubeconfig")?)?;
    for number in 1..=nodes {
        cluster.hollow_node(&format!("node-{number}")).await?;
    }
    println!("KUBECONFIG={path}");
    cluster.supervisor.shutdown().cancelled().await;
    Ok(())
}

fn arguments() -> Result<(String, u32), Box<dyn std::error::Error>> {
    let (mut path, mut nodes) = ("kubeconfig".to_owned(), 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--nodes" => nodes = arguments.next().ok_or("--nodes needs a number")?.parse()?,
            _ => path = argument,
        }
    }
    Ok((path, nodes))
}
