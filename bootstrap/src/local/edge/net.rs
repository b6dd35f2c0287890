//! What every listener of the edge does alike: accept, refuse, and end when a border closes.

use std::{future::pending, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::local::{NetworkState, Region};

/// How long to wait after a failure to accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connection was broken because a region is cut off. An HTTP server that gets this error closes the connection
/// without an answer, which is what a client of an isolated region sees.
#[derive(Debug, thiserror::Error)]
#[error("the region is cut off")]
pub(super) struct Severed;

/// Tasks of the edge and the signal that ends them.
#[derive(Debug, Clone, Default)]
pub(in crate::local) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs until it is done or the edge stops.
    pub(in crate::local) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Tasks that end with these, or before.
    pub(super) fn child(&self) -> Tasks {
        Tasks {
            stop: self.stop.child_token(),
            tracker: TaskTracker::new(),
        }
    }

    /// Ends all tasks and waits for them.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Gives every connection that arrives to `handle`, each in a task of its own.
    pub(in crate::local) fn accept<F, W>(&self, listener: TcpListener, handle: F)
    where
        F: Fn(TcpStream, SocketAddr) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        // Without it, small answers wait for acknowledgements. It fails only on a closed connection.
                        let _ = stream.set_nodelay(true);
                        tasks.spawn(handle(stream, peer));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
}

/// Resets the connection: the closest to a refusal that a bound listener can do.
pub(super) fn refuse(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// Resolves when nothing passes between the two any more.
pub(super) async fn severed(
    network: watch::Receiver<NetworkState>,
    source: Option<Region>,
    target: Option<Region>,
) {
    until(network, |state| !state.passes(source, target)).await;
}

/// Resolves when calls of the service do not pass between the two any more.
pub(super) async fn severed_call(
    network: watch::Receiver<NetworkState>,
    service: String,
    source: Option<Region>,
    target: Option<Region>,
) {
    until(network, |state| {
        !state.for_calls_of(&service).passes(source, target)
    })
    .await;
}

async fn until(mut network: watch::Receiver<NetworkState>, cut: impl FnMut(&NetworkState) -> bool) {
    if network.wait_for(cut).await.is_err() {
        // Whoever could cut is gone.
        pending::<()>().await;
    }
}
