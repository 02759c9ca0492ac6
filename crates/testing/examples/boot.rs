//! How long a control plane takes to be ready: `boot [TIMES]` starts so many, one after the other, and prints
//! the times to an answer of the API with controllers and scheduler running.

use krate_api::types::core::v1::Namespace;
use krate_testing::ControlPlane;
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let times: usize = std::env::args().nth(1).map_or(Ok(20), |n| n.parse())?;
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        let cluster = ControlPlane::start().await?;
        cluster.of::<Namespace>().get("", "default").await?;
        taken.push(started.elapsed());
        cluster.stop().await;
    }
    let first = taken.first().copied().unwrap_or_default();
    taken.sort();
    let at = |part: usize| taken.get(taken.len() * part / 100).copied().unwrap_or_default();
    println!("ready after: first {first:?}, median {:?}, 90 % {:?}", at(50), at(90));
    Ok(())
}
