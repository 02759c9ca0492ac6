//! A control plane in memory on a loopback port, for trying clients by hand: prints a kubeconfig's path.
//!
//! `serve [PATH] [--nodes N]`: where to write the kubeconfig, and how many hollow nodes to add.

use krate_client::kubeconfig::{Entry, with_entry};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    krate_base::telemetry::init("info");
    let cluster = krate_testing::ControlPlane::start().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let tls = cluster.api.tls(&["127.0.0.1".to_owned()])?;
    let pair = cluster.api.authority().client("admin", &["system:masters"])?;
    let entry = Entry {
        name: "test",
        server: &format!("https://{address}"),
        ca_pem: cluster.api.authority().ca_certificate().as_bytes(),
        cert_pem: pair.certificate.as_bytes(),
        key_pem: pair.key.as_bytes(),
    };
    let (path, nodes) = arguments()?;
    std::fs::write(&path, with_entry("", &entry)?)?;
    for number in 1..=nodes {
        cluster.hollow_node(&format!("node-{number}")).await?;
    }
    println!("KUBECONFIG={path}");
    cluster.api.serve(listener, tls, cluster.supervisor.shutdown()).await;
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
