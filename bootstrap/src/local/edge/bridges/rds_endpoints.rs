//! Bridge: where a database is.
//!
//! AWS answers `DescribeDBClusters`, `DescribeDBInstances`, `CreateDBCluster` and the like with the host name and port of
//! the region's cluster. The emulator answers with its own host name and the port asked for, where nothing listens. Here
//! the address of the region's real server takes their place, or that of a cluster's own.

use std::net::SocketAddr;

use quick_xml::{
    Reader, Writer,
    events::{BytesText, Event},
};

/// Replaces the endpoints in an answer of RDS by those of each cluster. What is no XML stays as it is.
pub(in crate::local::edge) fn rewrite(
    answer: &[u8],
    address: impl Fn(&str) -> SocketAddr,
) -> Option<Vec<u8>> {
    let mut databases = clusters(answer)?.into_iter().map(|cluster| address(&cluster));
    let mut database = address("");
    let mut reader = Reader::from_reader(answer);
    let mut writer = Writer::new(Vec::with_capacity(answer.len()));
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Eof => break,
            Event::Start(start) => {
                path.push(start.name().as_ref().to_owned());
                if is_database(&path) {
                    database = databases.next()?;
                }
                writer.write_event(Event::Start(start)).ok()?;
                // The text comes next, if there is any; what we write here replaces it.
                if let Some(text) = replacement(&path, database) {
                    writer.write_event(Event::Text(BytesText::new(&text))).ok()?;
                }
            }
            Event::End(end) => {
                path.pop();
                writer.write_event(Event::End(end)).ok()?;
            }
            Event::Text(_) if replacement(&path, database).is_some() => {}
            other => writer.write_event(other).ok()?,
        }
    }
    Some(writer.into_inner())
}

/// Whether a cluster or an instance is described here.
fn is_database(path: &[String]) -> bool {
    matches!(path.last().map(String::as_str), Some("DBCluster" | "DBInstance"))
}

/// The cluster of each cluster or instance that is described, in their order; empty where none is named.
fn clusters(answer: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::from_reader(answer);
    let mut path: Vec<String> = Vec::new();
    let mut found: Vec<String> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Eof => return Some(found),
            Event::Start(start) => {
                path.push(start.name().as_ref().to_owned());
                if is_database(&path) {
                    found.push(String::new());
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Text(text) => {
                if let Some((name, described)) = path.split_last()
                    && name == "DBClusterIdentifier"
                    && is_database(described)
                    && let Some(cluster) = found.last_mut()
                {
                    cluster.push_str(&text);
                }
            }
            _ => {}
        }
    }
}

fn replacement(path: &[String], database: SocketAddr) -> Option<String> {
    let mut innermost = path.iter().rev().map(String::as_str);
    let names = [
        innermost.next()?,
        innermost.next()?,
        innermost.next().unwrap_or_default(),
    ];
    match names {
        ["Endpoint" | "ReaderEndpoint", "DBCluster", _] => Some(database.ip().to_string()),
        ["Port", "DBCluster", _] => Some(database.port().to_string()),
        ["Address", "Endpoint", "DBInstance"] => Some(database.ip().to_string()),
        ["Port", "Endpoint", "DBInstance"] => Some(database.port().to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_clusters_and_instances_are_replaced_and_nothing_else() {
        let answer = "<?xml version=\"1.0\"?><R><DBClusters><DBCluster><DBClusterIdentifier>a&amp;b</DBClusterIdentifier>\
             <Endpoint>localhost</Endpoint><ReaderEndpoint></ReaderEndpoint><Port>5432</Port>\
             <Member><Port>1</Port></Member></DBCluster></DBClusters>\
             <DBInstance><Endpoint>\n  <Address>localhost</Address>\n  <Port>5432</Port></Endpoint></DBInstance>\
             <Other><Endpoint>stays</Endpoint></Other></R>";
        let database = "127.0.1.1:6000".parse().unwrap();
        let rewritten = String::from_utf8(rewrite(answer.as_bytes(), |_| database).unwrap()).unwrap();
        assert_eq!(
            rewritten,
            "<?xml version=\"1.0\"?><R><DBClusters><DBCluster><DBClusterIdentifier>a&amp;b</DBClusterIdentifier>\
             <Endpoint>127.0.1.1</Endpoint><ReaderEndpoint>127.0.1.1</ReaderEndpoint><Port>6000</Port>\
             <Member><Port>1</Port></Member></DBCluster></DBClusters>\
             <DBInstance><Endpoint>\n  <Address>127.0.1.1</Address>\n  <Port>6000</Port></Endpoint></DBInstance>\
             <Other><Endpoint>stays</Endpoint></Other></R>"
        );
    }

    #[test]
    fn a_cluster_that_has_a_server_of_its_own_and_its_instances_are_told_with_that_ones_address() {
        let of = |name: &str| {
            format!("<DBCluster><Port>1</Port><DBClusterIdentifier>{name}</DBClusterIdentifier></DBCluster>")
        };
        let instance = "<DBInstance><Endpoint><Port>1</Port></Endpoint><DBClusterIdentifier>tail</DBClusterIdentifier></DBInstance>";
        let answer = format!("<R>{}{}{instance}{}</R>", of("main"), of("tail"), of("main"));
        let address = |cluster: &str| {
            let port = if cluster == "tail" { 2 } else { 3 };
            SocketAddr::from(([127, 0, 1, 1], port))
        };
        let rewritten = String::from_utf8(rewrite(answer.as_bytes(), address).unwrap()).unwrap();
        let ports: Vec<&str> = rewritten.split("<Port>").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(ports, ["3", "2", "2", "3"]);
    }

    #[test]
    fn what_is_no_xml_is_left_alone() {
        assert_eq!(
            rewrite(b"<a><b></a>", |_| "127.0.1.1:6000".parse().unwrap()),
            None
        );
    }
}
