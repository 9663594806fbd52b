//! [`Tasks`]: every background task has an owner, a name and an end.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Background tasks that end together.
///
/// A task is handed the token and returns soon after it is cancelled. Dropping the owner cancels it
/// too, and waits for nobody.
#[derive(Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    running: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Tasks {
    /// No task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that [`Tasks::shutdown`] cancels.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Starts `task`, which is given the token.
    pub fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = tokio::spawn(task(self.token.clone()));
        self.running.lock().push((name, handle));
    }

    /// Asks all tasks to end and waits for each at most `patience`; then it is aborted, and named in
    /// the log.
    pub async fn shutdown(&self, patience: Duration) {
        self.token.cancel();
        let running = std::mem::take(&mut *self.running.lock());
        for (name, mut handle) in running {
            match tokio::time::timeout(patience, &mut handle).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::error!(task = name, error = %e, "a task failed"),
                Err(_) => {
                    tracing::warn!(task = name, "a task did not end in time and was aborted");
                    handle.abort();
                }
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tasks_and_aborts_the_stubborn() {
        let tasks = Tasks::new();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        tasks.spawn("polite", |token| async move {
            token.cancelled().await;
            flag.store(true, Ordering::SeqCst);
        });
        tasks.spawn("stubborn", |_| std::future::pending());
        tasks.shutdown(Duration::from_millis(10)).await;
        assert!(ended.load(Ordering::SeqCst));
    }
}
