//! A future that is brought to its end in the background when whoever waits for it goes away.
//!
//! For requests whose answer must be dealt with in any case. Polled in place, it costs no task and no change
//! of thread as long as somebody waits. Without a runtime it just ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Such a future.
pub(crate) struct Detach<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Detach<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Detach<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.0.as_mut().expect("nothing is awaited once more after its end");
        let outcome = std::task::ready!(future.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(outcome)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Detach<F> {
    fn drop(&mut self) {
        if let (Some(future), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_ends_whether_or_not_anybody_waits() {
        assert_eq!(Detach::new(async { 7 }).await, 7);

        let (ask, asked) = oneshot::channel::<()>();
        let (answer, answered) = oneshot::channel();
        let future = Detach::new(async move {
            asked.await.unwrap();
            answer.send("done").unwrap();
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), future).await.is_err());
        ask.send(()).unwrap();
        assert_eq!(answered.await, Ok("done"));
    }
}
