//! The links between the database servers: a TCP proxy per direction. A cut breaks them and refuses new ones; a lag holds
//! the bytes on their way into the standby, in order, and lets them go when it ends.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::net::{Tasks, refuse, severed};
use crate::local::{Network, NetworkState, Region};

const BUFFER_BYTES: usize = 64 * 1024;

/// Proxies the standby's connections to the primary.
pub(super) fn serve(
    tasks: &Tasks,
    listener: TcpListener,
    network: Arc<Network>,
    primary: Region,
    standby: Region,
    server: SocketAddr,
) {
    tasks.accept(listener, move |stream, _| {
        link(stream, network.clone(), primary, standby, server)
    });
}

async fn link(
    standby_side: TcpStream,
    network: Arc<Network>,
    primary: Region,
    standby: Region,
    server: SocketAddr,
) {
    let state = network.subscribe();
    if !state.borrow().passes(Some(standby), Some(primary)) {
        return refuse(standby_side);
    }
    let Ok(primary_side) = TcpStream::connect(server).await else {
        return refuse(standby_side);
    };
    let _ = primary_side.set_nodelay(true);
    let held = state.clone();
    let (mut standby_side, mut primary_side) = (standby_side, primary_side);
    let broken = {
        let (from_standby, to_standby) = standby_side.split();
        let (from_primary, to_primary) = primary_side.split();
        let both = async {
            tokio::try_join!(
                pump(from_primary, to_standby, held, |state| state.is_lagging(standby)),
                pump(from_standby, to_primary, state.clone(), |_| false),
            )
        };
        tokio::select! {
            () = severed(state.clone(), Some(standby), Some(primary)) => true,
            _ = both => false,
        }
    };
    if broken {
        refuse(standby_side);
        refuse(primary_side);
    }
}

/// Copies until the end; while `held`, nothing is read and what was read is not written.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<NetworkState>,
    held: impl Fn(&NetworkState) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        // An error means that nobody is left who could hold it.
        let _ = state.wait_for(|state| !held(state)).await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    struct Bench {
        tasks: Tasks,
        network: Arc<Network>,
        server: TcpListener,
        link: SocketAddr,
    }

    async fn bench() -> Bench {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = TcpListener::bind(local).await.unwrap();
        let listener = TcpListener::bind(local).await.unwrap();
        let link = listener.local_addr().unwrap();
        let (tasks, network) = (Tasks::default(), Arc::new(Network::default()));
        let address = server.local_addr().unwrap();
        serve(
            &tasks,
            listener,
            network.clone(),
            Region::UsEast1,
            Region::UsEast2,
            address,
        );
        Bench {
            tasks,
            network,
            server,
            link,
        }
    }

    async fn connected(bench: &Bench) -> (TcpStream, TcpStream) {
        let standby = TcpStream::connect(bench.link).await.unwrap();
        let (primary, _) = bench.server.accept().await.unwrap();
        (primary, standby)
    }

    #[tokio::test]
    async fn lag_holds_the_bytes_into_the_standby_and_resumes_them_in_order() {
        let bench = bench().await;
        let (mut primary, mut standby) = connected(&bench).await;
        primary.write_all(b"one ").await.unwrap();
        let mut read = [0; 4];
        standby.read_exact(&mut read).await.unwrap();

        bench.network.lag(Region::UsEast2, true);
        primary.write_all(b"two ").await.unwrap();
        primary.write_all(b"three").await.unwrap();
        // The other direction flows: once its bytes are through, so would have been the held ones.
        standby.write_all(b"status").await.unwrap();
        let mut status = [0; 6];
        tokio::time::timeout(PATIENCE, primary.read_exact(&mut status))
            .await
            .unwrap()
            .unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(100), standby.read(&mut read)).await;
        assert!(quiet.is_err(), "bytes passed a held link");

        bench.network.lag(Region::UsEast2, false);
        let mut rest = [0; 9];
        tokio::time::timeout(PATIENCE, standby.read_exact(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&rest, b"two three");
        bench.tasks.stop().await;
    }

    #[tokio::test]
    async fn a_cut_of_either_side_breaks_the_link_and_refuses_new_ones() {
        for region in [Region::UsEast1, Region::UsEast2] {
            let bench = bench().await;
            let (mut primary, mut standby) = connected(&bench).await;
            bench.network.cut(region);
            let mut read = [0; 1];
            for side in [&mut primary, &mut standby] {
                let ended = tokio::time::timeout(PATIENCE, side.read(&mut read))
                    .await
                    .unwrap();
                assert!(matches!(ended, Ok(0) | Err(_)));
            }
            let mut again = TcpStream::connect(bench.link).await.unwrap();
            let refused = tokio::time::timeout(PATIENCE, again.read(&mut read))
                .await
                .unwrap();
            assert!(matches!(refused, Ok(0) | Err(_)));

            bench.network.heal(region);
            let (mut primary, mut standby) = connected(&bench).await;
            primary.write_all(b"x").await.unwrap();
            tokio::time::timeout(PATIENCE, standby.read_exact(&mut read))
                .await
                .unwrap()
                .unwrap();
            bench.tasks.stop().await;
        }
    }

    #[tokio::test]
    async fn the_end_of_a_stream_passes_after_its_bytes() {
        let bench = bench().await;
        let (mut primary, mut standby) = connected(&bench).await;
        primary.write_all(b"last").await.unwrap();
        primary.shutdown().await.unwrap();
        let mut all = Vec::new();
        tokio::time::timeout(PATIENCE, standby.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(all, b"last");
        bench.tasks.stop().await;
    }
}
