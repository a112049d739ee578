//! Whether every task still gets its turn: what systemd's watchdog is fed by.
//!
//! A timer would go on feeding it while the tasks that matter hang. So each is asked, and answers itself, between two
//! steps of its work: one that blocks, spins or waits for a lock keeps silent. A source that is lost, or slow, answers:
//! that is no reason to begin anew, and the records tell of it.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// The tasks that are asked.
#[derive(Debug, Default)]
pub struct Rounds {
    question: watch::Sender<u64>,
    answers: Vec<(&'static str, watch::Receiver<u64>)>,
}

impl Rounds {
    /// The same task, which answers from now on.
    pub fn include<F: Future>(&mut self, name: &'static str, task: F) -> impl Future<Output = F::Output> + use<F> {
        let mut question = self.question.subscribe();
        let (answer, answers) = watch::channel(0);
        self.answers.push((name, answers));
        async move {
            let mut task = pin!(task);
            loop {
                tokio::select! {
                    // The task first: that it gave way is the answer.
                    biased;
                    output = &mut task => return output,
                    Ok(()) = question.changed() => {
                        answer.send_replace(*question.borrow_and_update());
                    }
                }
            }
        }
    }

    /// Asks every task, and gives the names of those that do not answer in time.
    pub async fn silent(&mut self, patience: Duration) -> Vec<&'static str> {
        let number = *self.question.borrow() + 1;
        self.question.send_replace(number);
        let deadline = Instant::now() + patience;
        let mut silent = Vec::new();
        for (name, answers) in &mut self.answers {
            // One that has ended is nobody to ask: the daemon ends with it.
            if timeout_at(deadline, answers.wait_for(|answer| *answer >= number)).await.is_err() {
                silent.push(*name);
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex},
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_task_that_blocks_is_silent_until_it_goes_on() {
        let mut rounds = Rounds::default();
        let lock = Arc::new(Mutex::new(()));
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(rounds.include("waits", pending::<()>()));
        let blocks = Arc::clone(&lock);
        tokio::spawn(rounds.include("blocks", async move {
            let _ = begun.await;
            drop(blocks.lock().unwrap());
            pending::<()>().await
        }));
        assert!(rounds.silent(LIMIT).await.is_empty());
        {
            let held = lock.lock().unwrap();
            begin.send(()).unwrap();
            // However late it is woken, it never answers while it is blocked.
            let silent = loop {
                let silent =
                    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(rounds.silent(SOON)));
                if !silent.is_empty() {
                    break silent;
                }
            };
            assert_eq!(silent, ["blocks"]);
            drop(held);
        }
        assert!(rounds.silent(LIMIT).await.is_empty());
    }

    #[tokio::test]
    async fn a_task_that_has_ended_is_not_waited_for() {
        let mut rounds = Rounds::default();
        tokio::spawn(rounds.include("ends", async {})).await.unwrap();
        assert!(rounds.silent(LIMIT).await.is_empty());
    }
}
