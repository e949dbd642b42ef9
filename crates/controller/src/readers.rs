//! Sorts questions. What only reads is answered from the newest [snapshot](crate::snapshot) and from the store, by
//! threads of its own: the owner's task has no part in it, so that many readers cost its rounds nothing,
//! and they are answered while it is busy. The rest goes to the owner.

use crate::answer::Reader;
use crate::api::{Demand, Query, Read};
use crate::provider::Provider;
use crate::snapshot::Shown;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use thiao_core::ids::JobId;
use tokio::sync::mpsc;

/// Threads that answer: one goes on while another reads many events. More would take the CPU from the
/// rounds when very many ask.
pub const READERS: usize = 2;

/// Questions that may wait for these threads; whoever asks more waits before that.
const BACKLOG: usize = 256;

/// Takes the questions, and hands them to those who answer.
#[derive(Clone)]
pub struct Desk {
    shown: Arc<Shown>,
    reads: mpsc::Sender<Read>,
    demands: mpsc::Sender<Demand>,
}

impl Desk {
    /// Starts a thread for each reader. They end with the desk, which ends with the owner.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start<P: Provider>(
        readers: Vec<Reader<P>>,
        shown: Arc<Shown>,
        demands: mpsc::Sender<Demand>,
    ) -> io::Result<Self> {
        let (reads, asked) = mpsc::channel(BACKLOG);
        let asked = Arc::new(Mutex::new(asked));
        for reader in readers {
            let asked = asked.clone();
            std::thread::Builder::new()
                .name("reader".to_owned())
                .spawn(move || {
                    while let Some(read) = next(&asked) {
                        reader.answer(read);
                    }
                })?;
        }
        Ok(Self {
            shown,
            reads,
            demands,
        })
    }

    /// Hands questions on until nobody asks any more, or the owner is gone.
    pub async fn run(self, mut queries: mpsc::Receiver<Query>) {
        loop {
            let query = tokio::select! {
                query = queries.recv() => query,
                () = self.demands.closed() => None,
            };
            let Some(query) = query else { return };
            // Each waits for itself: a prolog never waits for those who only read, nor they for the owner.
            tokio::spawn(self.clone().hand_on(query));
        }
    }

    /// One that cannot be handed on is dropped, and so its asker hears that the controller ends.
    async fn hand_on(self, query: Query) {
        match query {
            Query::Read(read) => {
                self.shown.renewed().await;
                drop(self.reads.send(read).await);
            }
            Query::Demand(Demand::JobSeen {
                job: Some(job),
                reply,
            }) if self.shows(job).await => {
                // An asker that has left is no error.
                drop(reply.send(Ok(())));
            }
            Query::Demand(demand) => drop(self.demands.send(demand).await),
        }
    }

    async fn shows(&self, job: JobId) -> bool {
        self.shown.renewed().await;
        self.shown.snapshots().borrow().shows(job)
    }
}

fn next(asked: &Mutex<mpsc::Receiver<Read>>) -> Option<Read> {
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .blocking_recv()
}
