//! The name server's two sockets: questions in, answers out.

use std::{net::SocketAddr, sync::Arc};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::answer::Answer;

/// What a UDP answer may have when the client does not say (RFC 1035, 2.3.4).
const PLAIN_UDP_BYTES: usize = 512;
/// What we take over UDP, and the most that we send (the size that passes everywhere without fragments).
const UDP_BYTES: u16 = 1232;

/// Answers questions over UDP.
pub(super) async fn udp<F>(socket: UdpSocket, answer: F)
where
    F: Fn(&hickory_proto::rr::Name, RecordType) -> Answer,
{
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An answer that could not be delivered is reported here; the next question may still come.
            Err(error) => {
                tracing::debug!(%error, "the name server cannot receive");
                continue;
            }
        };
        if let Some(response) = respond(&buffer[..length], true, &answer) {
            send(&socket, &response, peer).await;
        }
    }
}

async fn send(socket: &UdpSocket, response: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(response, peer).await {
        tracing::debug!(%peer, %error, "the name server cannot answer");
    }
}

/// Answers questions over one TCP connection, each with its length before it (RFC 1035, 4.2.2).
pub(super) async fn tcp<F>(mut stream: TcpStream, answer: Arc<F>)
where
    F: Fn(&hickory_proto::rr::Name, RecordType) -> Answer,
{
    // The end of the connection is no error.
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(response) = respond(&question, false, &*answer) else {
            return;
        };
        let Ok(length) = u16::try_from(response.len()) else {
            return;
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(response);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// The answer to one message. `None` for what is no question.
fn respond<F>(question: &[u8], over_udp: bool, answer: &F) -> Option<Vec<u8>>
where
    F: Fn(&hickory_proto::rr::Name, RecordType) -> Answer,
{
    let request = Message::from_vec(question).ok()?;
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.add_queries(request.queries.iter().cloned());
    let allowed = request
        .edns
        .as_ref()
        .map_or(PLAIN_UDP_BYTES, |edns| edns.max_payload().min(UDP_BYTES).into());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES);
        response.set_edns(edns);
    }
    match &request.queries[..] {
        _ if request.metadata.op_code != OpCode::Query => {
            response.metadata.response_code = ResponseCode::NotImp
        }
        [query] if query.query_class() == DNSClass::IN && !is_transfer(query.query_type()) => {
            let answer = answer(query.name(), query.query_type());
            response.metadata.authoritative = answer.authoritative;
            response.metadata.response_code = answer.code;
            response.add_answers(answer.answers);
            response.add_authorities(answer.authority);
        }
        [_] => response.metadata.response_code = ResponseCode::Refused,
        _ => response.metadata.response_code = ResponseCode::FormErr,
    }
    let bytes = response.to_vec().ok()?;
    if over_udp && bytes.len() > allowed {
        // The client asks again over TCP.
        return response.truncate().to_vec().ok();
    }
    Some(bytes)
}

fn is_transfer(kind: RecordType) -> bool {
    matches!(kind, RecordType::AXFR | RecordType::IXFR)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Query,
        rr::{Name, RData, Record, rdata::TXT},
    };

    use super::*;

    fn ask(kind: RecordType, edns: bool, over_udp: bool, texts: usize) -> Message {
        let name = Name::from_ascii("example.test.").unwrap();
        let mut question = Message::query();
        question.add_query(Query::query(name, kind));
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES);
            question.set_edns(edns);
        }
        let answer = |name: &Name, _: RecordType| Answer {
            code: ResponseCode::NoError,
            authoritative: true,
            answers: (0..texts)
                .map(|i| {
                    Record::from_rdata(name.clone(), 1, RData::TXT(TXT::new(vec![format!("{i:0>100}")])))
                })
                .collect(),
            authority: vec![],
        };
        let bytes = respond(&question.to_vec().unwrap(), over_udp, &answer).unwrap();
        let response = Message::from_vec(&bytes).unwrap();
        assert_eq!(response.metadata.id, question.metadata.id);
        response
    }

    #[test]
    fn an_answer_repeats_the_question_and_is_authoritative() {
        let response = ask(RecordType::TXT, true, true, 1);
        assert!(response.metadata.authoritative);
        assert!(!response.metadata.recursion_available);
        assert_eq!(response.queries.len(), 1);
        assert_eq!(response.answers.len(), 1);
        assert!(response.edns.is_some());
    }

    #[test]
    fn what_does_not_fit_into_udp_is_cut_short_and_whole_over_tcp() {
        let cut = ask(RecordType::TXT, false, true, 10);
        assert!(cut.metadata.truncation);
        assert_eq!(cut.answers.len(), 0);
        assert_eq!(ask(RecordType::TXT, true, true, 10).answers.len(), 10);
        assert_eq!(ask(RecordType::TXT, false, false, 10).answers.len(), 10);
    }

    #[test]
    fn zone_transfers_are_refused() {
        assert_eq!(
            ask(RecordType::AXFR, false, false, 0).metadata.response_code,
            ResponseCode::Refused
        );
    }
}
