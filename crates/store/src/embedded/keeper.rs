//! The task that does what falls due: deletes what expires, compacts what grew old, and lets go of events in memory
//! that few will ask for any more. It sleeps until the
//! first deadline and is woken when an earlier one appears; an idle store does nothing.

use super::Core;
use crate::{Check, Error, Key, Op, Revision, Txn};
use futures::future::join_all;
use krate_base::Shutdown;
use std::sync::Arc;
use std::time::Duration;

/// How many expired keys are deleted at once.
const BATCH: usize = 256;
/// Longest sleep, so that a calendar that was set forward is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);

pub(crate) async fn run(core: Arc<Core>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let woken = core.keeper.notified();
        match work(&core).await {
            Ok(()) => {}
            Err(Error::Closed | Error::Io(_)) => return,
            Err(error) => tracing::warn!(%error, "the store could not do what was due"),
        }
        let now = core.clock.now().as_microsecond();
        let next = core.agenda.lock().next();
        let pause = next.map(|at| Duration::from_micros(u64::try_from(at - now).unwrap_or(0)));
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = woken => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause.min(LONGEST_SLEEP)).await,
        None => std::future::pending().await,
    }
}

async fn work(core: &Arc<Core>) -> Result<(), Error> {
    loop {
        let now = core.clock.now().as_microsecond();
        let (expired, aged, cooled) = {
            let mut agenda = core.agenda.lock();
            (agenda.expired(now, BATCH), agenda.aged(now), agenda.cooled(now))
        };
        if let Some(upto) = cooled {
            core.cool(upto);
        }
        if let Some(upto) = aged {
            core.compact(upto).await?;
        }
        if expired.is_empty() {
            return Ok(());
        }
        for outcome in join_all(expired.into_iter().map(|(key, modified)| delete(core, key, modified))).await
        {
            match outcome {
                // written again or deleted by somebody else: that version's deadline means nothing any more
                Ok(()) | Err(Error::Failed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn delete(core: &Arc<Core>, key: Key, modified: Revision) -> Result<(), Error> {
    let checks = vec![Check::At(key.clone(), modified)];
    core.commit(Txn { checks, ops: vec![Op::Delete { key, last: None }] }).await.map(drop)
}
