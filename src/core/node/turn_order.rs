//! The order in which an iteration of the event loop serves connections. The order matters if one
//! iteration has no time for all connections that are ready.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{ConnId, Node};
use crate::core::session::origins::origin;

impl Node {
    /// Sorts connections that are ready for input. Neighbours, Places and proxies come first.
    /// Clients and connections to the HTTP port follow in rounds, with one connection of each
    /// [`origin`] (an IPv4 address or an IPv6 /64) in a round. So an origin with many connections
    /// does not delay an origin with few. Apart from this, the order does not change. Returns the
    /// number of connections that come before the first round.
    pub fn order_fairly(&self, ready: &mut [ConnId]) -> usize {
        let mut rounds: HashMap<IpAddr, u32> = HashMap::new();
        let mut keyed: Vec<(u32, ConnId)> = ready
            .iter()
            .map(|&id| match self.client_origin(id) {
                None => (0, id),
                Some(origin) => {
                    let round = rounds.entry(origin).or_default();
                    *round += 1;
                    (*round, id)
                }
            })
            .collect();
        keyed.sort_by_key(|&(round, _)| round);
        let first_client = keyed.partition_point(|&(round, _)| round == 0);
        for (slot, (_, id)) in ready.iter_mut().zip(keyed) {
            *slot = id;
        }
        first_client
    }

    /// Returns the origin of the address of a client or of a connection to the HTTP port. Returns
    /// `None` for other connections: a neighbour, Places, or a proxy whose header has not arrived.
    fn client_origin(&self, id: ConnId) -> Option<IpAddr> {
        // A proxy's connection is sorted before clients only until its header names the client.
        // That is usually its first read.
        let session = &self.sessions.get(id)?.session;
        let client = session.client().map(|client| client.address());
        let address = client.or_else(|| session.http().map(|http| http.address()))?;
        Some(origin(address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, node};
    use super::*;

    #[test]
    fn an_address_with_many_connections_does_not_delay_one_with_few() {
        let mut node = node(Default::default());
        let mut from = |address: &str| {
            let address = address.parse().unwrap();
            node.handle_client_connected(address, at(0)).unwrap()
        };
        let crowd: Vec<ConnId> = (1..=4)
            .map(|port| from(&format!("192.0.2.1:{port}")))
            .collect();
        let pair = [from("[2001:db8::1]:1"), from("[2001:db8::2]:1")];
        let alone = from("192.0.2.2:1");
        let link = node
            .handle_neighbour_connected("192.0.2.3:1".parse().unwrap(), at(0))
            .unwrap();
        let mut ready = crowd.clone();
        ready.extend(pair);
        ready.extend([alone, link]);
        assert_eq!(node.order_fairly(&mut ready), 1);
        let expected = [
            link, crowd[0], pair[0], alone, crowd[1], pair[1], crowd[2], crowd[3],
        ];
        assert_eq!(ready, expected);
    }
}
