//! Load with a bounded number of requests in flight.

use futures::StreamExt as _;
use futures::stream;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// The latencies of `count` operations with at most `in_flight` at a time, and how long they took together.
/// The first failure ends it.
pub async fn drive<F, Fut, E>(
    count: usize,
    in_flight: usize,
    operation: F,
) -> Result<(Vec<Duration>, Duration), E>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let started = Instant::now();
    let mut running = stream::iter(0..count)
        .map(|i| {
            let work = operation(i);
            async move {
                let begun = Instant::now();
                work.await.map(|()| begun.elapsed())
            }
        })
        .buffer_unordered(in_flight);
    let mut latencies = Vec::with_capacity(count);
    while let Some(done) = running.next().await {
        latencies.push(done?);
    }
    Ok((latencies, started.elapsed()))
}
