//! TLS in front of a region's PostgreSQL, as RDS has it with `rds.force_ssl`. It is inside its region: in AWS the database
//! is in the region's private network, so that no call from elsewhere can reach it and a cut changes nothing.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::net::{Tasks, refuse};

/// The codes that stand in the place of a protocol version in a client's first message.
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;
/// The longest first message that the server accepts.
const MAX_STARTUP_BYTES: u32 = 10_000;
/// How long a client may take to negotiate.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves TLS at the listener in front of the server.
pub(in crate::local) fn serve(
    tasks: &Tasks,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    server: SocketAddr,
) {
    let acceptor = TlsAcceptor::from(tls);
    tasks.accept(listener, move |stream, peer| {
        let acceptor = acceptor.clone();
        async move {
            // A failure is the client's or the server's to report: both see the connection end.
            if let Err(error) = proxy(stream, peer, acceptor, server).await {
                tracing::debug!(%peer, %error, "a database connection ended");
            }
        }
    });
}

/// What a client asked for before anything was encrypted.
enum Negotiated {
    Tls,
    Cancel(Vec<u8>),
    Refused,
}

async fn proxy(
    mut client: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    server: SocketAddr,
) -> io::Result<()> {
    // The server first: when it is down, so is its port.
    let mut upstream = match TcpStream::connect(server).await {
        Ok(upstream) => upstream,
        Err(error) => {
            refuse(client);
            return Err(error);
        }
    };
    upstream.set_nodelay(true)?;
    match tokio::time::timeout(NEGOTIATION_TIMEOUT, negotiate(&mut client, peer)).await?? {
        Negotiated::Tls => {
            let mut client = tokio::time::timeout(NEGOTIATION_TIMEOUT, tls.accept(client)).await??;
            tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
        }
        // Clients cancel over a connection of its own that older ones do not encrypt; it carries a secret key, no data.
        Negotiated::Cancel(request) => {
            upstream.write_all(&request).await?;
            tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
        }
        Negotiated::Refused => {}
    }
    Ok(())
}

async fn negotiate(client: &mut TcpStream, peer: SocketAddr) -> io::Result<Negotiated> {
    loop {
        let length = client.read_u32().await?;
        if !(8..=MAX_STARTUP_BYTES).contains(&length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a PostgreSQL client",
            ));
        }
        let code = client.read_u32().await?;
        let mut rest = vec![0; length as usize - 8];
        client.read_exact(&mut rest).await?;
        match code {
            SSL_REQUEST => {
                client.write_all(b"S").await?;
                return Ok(Negotiated::Tls);
            }
            GSS_ENCRYPTION_REQUEST => client.write_all(b"N").await?,
            CANCEL_REQUEST => {
                let mut request = Vec::with_capacity(length as usize);
                request.extend(length.to_be_bytes());
                request.extend(code.to_be_bytes());
                request.extend(rest);
                return Ok(Negotiated::Cancel(request));
            }
            _ => {
                client.write_all(&unencrypted_refusal(peer, &rest)).await?;
                client.shutdown().await?;
                return Ok(Negotiated::Refused);
            }
        }
    }
}

/// The error that a server with `rds.force_ssl` sends to a client that does not encrypt.
fn unencrypted_refusal(peer: SocketAddr, startup: &[u8]) -> Vec<u8> {
    let mut words = startup.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let (mut user, mut database) = (String::new(), None);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match &*name {
            "user" => user = value.into_owned(),
            "database" => database = Some(value.into_owned()),
            _ => {}
        }
    }
    let database = database.unwrap_or_else(|| user.clone());
    let host = peer.ip();
    let message = format!(
        "no pg_hba.conf entry for host \"{host}\", user \"{user}\", database \"{database}\", no encryption"
    );
    let mut fields = Vec::new();
    for (code, text) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "28000"),
        (b'M', &message),
    ] {
        fields.push(code);
        fields.extend(text.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).expect("a startup message is short");
    let mut response = vec![b'E'];
    response.extend(length.to_be_bytes());
    response.extend(fields);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unencrypted_client_is_told_as_rds_tells_it() {
        let startup = b"user\0understudy\0database\0payments\0\0";
        let message = unencrypted_refusal(SocketAddr::from(([127, 0, 0, 1], 5)), startup);
        assert_eq!(message[0], b'E');
        let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
        assert_eq!(length as usize, message.len() - 1);
        let text = String::from_utf8_lossy(&message[5..]).replace('\0', "|");
        assert_eq!(
            text,
            "SFATAL|VFATAL|C28000|Mno pg_hba.conf entry for host \"127.0.0.1\", user \"understudy\", \
             database \"payments\", no encryption||"
        );
    }
}
