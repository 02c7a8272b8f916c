// SPDX-License-Identifier: GPL-2.0-or-later
//! The table as the entries that an operator would add.

use super::Pool4;
use crate::base::prefix::Prefix4;
use crate::model::{MaxIterations, Pool4Entry};

impl Pool4 {
    /// Entries that make the same table when they are added to an empty one.
    pub fn entries(&self) -> Vec<Pool4Entry> {
        let mut entries = Vec::new();
        for (protocol, mark, iterations, blocks) in self.sets() {
            for block in blocks {
                let nets = ipnet::Ipv4Subnets::new(block.first, block.last, 0);
                let prefixes = nets.filter_map(|n| Prefix4::new(n.network(), n.prefix_len()).ok());
                for prefix in prefixes {
                    entries.extend(block.ports.iter().map(|ports| Pool4Entry {
                        mark,
                        protocol,
                        prefix,
                        ports: *ports,
                        max_iterations: Some(iterations).filter(|i| *i != MaxIterations::Auto),
                    }));
                }
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Protocol;
    use crate::model::PortRange;

    fn entry(prefix: &str, min: u16, max: u16, mark: u32) -> Pool4Entry {
        Pool4Entry {
            mark,
            protocol: Protocol::Tcp,
            prefix: prefix.parse().unwrap(),
            ports: PortRange { min, max },
            max_iterations: None,
        }
    }

    #[test]
    fn entries_make_the_same_table() {
        let mut pool4 = Pool4::default();
        for given in [
            entry("192.0.2.0/30", 1, 9, 0),
            entry("192.0.2.2/31", 20, 30, 0),
            entry("192.0.2.4", 1, 9, 0),
            Pool4Entry {
                max_iterations: Some(MaxIterations::Fixed(7)),
                ..entry("10.0.0.0/8", 5, 5, 3)
            },
        ] {
            pool4.add(&given);
        }
        let entries = pool4.entries();
        assert_eq!(entries.len(), 5, "{entries:?}");
        let mut again = Pool4::default();
        entries.iter().for_each(|entry| again.add(entry));
        let sets = |pool4: &Pool4| format!("{:?}", pool4.sets().collect::<Vec<_>>());
        assert_eq!(sets(&again), sets(&pool4));
        assert_eq!(again.entries(), entries);
    }
}
