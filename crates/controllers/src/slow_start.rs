//! Many calls at once, carefully: one, then two, four, eight ..., so that a failure that would hit all of
//! them hits few.

use futures::future::join_all;
use std::future::Future;

/// How a series of calls went.
pub struct Done<E> {
    /// Calls that were made, failed ones included.
    pub attempted: usize,
    pub succeeded: usize,
    /// The first failure of the batch that failed; no call was made after that batch.
    pub failure: Option<E>,
}

/// Calls `call(0..count)` in batches that double in size as long as all succeed.
pub async fn slow_start<F, Fut, E>(count: usize, call: F) -> Done<E>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let mut done = Done { attempted: 0, succeeded: 0, failure: None };
    let mut batch = 1;
    while done.attempted < count && done.failure.is_none() {
        let size = batch.min(count - done.attempted);
        let results = join_all((done.attempted..done.attempted + size).map(&call)).await;
        done.attempted += size;
        done.succeeded += results.iter().filter(|r| r.is_ok()).count();
        done.failure = results.into_iter().find_map(Result::err);
        batch = size * 2;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_stops_after_its_batch() {
        let done = slow_start(100, |n| async move { if n == 4 { Err(n) } else { Ok(()) } }).await;
        assert_eq!((done.attempted, done.succeeded, done.failure), (7, 6, Some(4)));
        let done = slow_start(10, |_| async { Ok::<(), ()>(()) }).await;
        assert_eq!((done.attempted, done.succeeded, done.failure), (10, 10, None));
    }
}
