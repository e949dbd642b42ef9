//! Users whose jobs come to VMs that were not made for them: their guests are told of them before the jobs start, which
//! wait for that in their prologs, and remove what earlier jobs left.

use crate::api::{ApiError, Reply};
use crate::provider::{Provider, ProviderError};
use std::sync::Arc;
use thiao_core::ids::{VmId, VmTag};
use thiao_core::prolog::Leftovers;

/// Guests that are told at once: each may have to mount a folder.
const AT_ONCE: usize = 16;

/// A user, and the VMs in which a job of his starts.
pub struct Newcomer {
    pub uid: u32,
    pub vms: Vec<Stop>,
}

/// One of the VMs.
pub struct Stop {
    pub tag: VmTag,
    pub id: Option<VmId>,
    pub leftovers: Leftovers,
}

impl Newcomer {
    /// Has all guests know him, away from the owner's task, and then answers those who wait for the job's start. A job
    /// whose user cannot be handed over goes back into the queue: in the guest it would fail, or lose its output.
    pub fn welcome<P: Provider>(self, provider: Arc<P>, waiters: Vec<Reply<()>>) {
        tokio::spawn(async move {
            let told = tokio::task::spawn_blocking(move || self.tell(&*provider)).await;
            let answer = match told {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(ApiError::Conflict(error.text)),
                Err(error) => Err(ApiError::Internal(error.to_string())),
            };
            for waiter in waiters {
                // An asker that has left is no error.
                drop(waiter.send(answer.clone()));
            }
        });
    }

    fn tell<P: Provider>(&self, provider: &P) -> Result<(), ProviderError> {
        for some in self.vms.chunks(AT_ONCE) {
            let told: Vec<Result<(), ProviderError>> = std::thread::scope(|scope| {
                let threads: Vec<_> = some
                    .iter()
                    .map(|stop| {
                        let Stop { tag, id, leftovers } = stop;
                        scope.spawn(move || provider.welcome(tag, id.as_ref(), self.uid, *leftovers))
                    })
                    .collect();
                threads
                    .into_iter()
                    .filter_map(|thread| thread.join().ok())
                    .collect()
            });
            told.into_iter().collect::<Result<(), _>>().inspect_err(|error| {
                tracing::warn!(uid = self.uid, %error, "a job's user is not handed to its VMs");
            })?;
        }
        Ok(())
    }
}
