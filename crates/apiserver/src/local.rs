//! The in-process transport: enters after the listener, with an identity of its own.
//!
//! Authorization, admission and validation are those of any request; only the wire is skipped. Objects are
//! handed out as the store has them, without a copy.

use crate::call::Outcome;
use crate::pipeline;
use crate::server::Inner;
use crate::user::UserInfo;
use async_trait::async_trait;
use krate_api::Status;
use krate_client::{Reply, Request, Transport, WatchStream};
use std::sync::Arc;

pub(crate) struct Local {
    server: Arc<Inner>,
    user: Arc<UserInfo>,
}

impl Local {
    pub fn new(server: Arc<Inner>, user: UserInfo) -> Self {
        Self { server, user: Arc::new(user) }
    }
}

#[async_trait]
impl Transport for Local {
    async fn send(&self, request: Request) -> Result<Reply, Status> {
        let answer = pipeline::perform(&self.server, &self.user, request).await?;
        Ok(match answer.outcome {
            Outcome::Object { object, .. } => Reply::Object(object),
            Outcome::List(listed) => Reply::List {
                items: listed.items,
                revision: listed.revision,
                continue_token: listed.continue_token,
            },
            Outcome::Encoded { bytes, .. } => Reply::Bytes(bytes),
        })
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, Status> {
        Ok(pipeline::open_watch(&self.server, &self.user, &request).await?.into_stream())
    }
}
