// SPDX-License-Identifier: GPL-2.0-or-later
//! What strangers and mistakes do to a cluster: nothing, but it is counted and said.

use super::world::{HANDLE, Here, World, packet};
use super::{Dice, addr_of};
use crate::base::host::Nameless;
use crate::base::{Protocol, Tick, Transport4};
use crate::model::Flavour;
use crate::nat64::question::Question;
use crate::replica::peer::{Event, Finding, Node, SessionKey, Stats, Table};

/// Two nodes that agree, and some sessions.
fn pair() -> World {
    let mut world = World::new(7, 3, |_| {});
    world.start(0);
    world.start(1);
    pass(&mut world, 6_000);
    for client in 0..9 {
        let protocol = Protocol::ALL[usize::from(client % 3)];
        assert!(world.traffic(0, packet(protocol, client, 1)).is_some());
    }
    pass(&mut world, 200);
    assert_eq!(world.disagreement(), None);
    assert_eq!(world.content(1).len(), 9);
    world
}

fn pass(world: &mut World, ms: u64) {
    world.run(world.now.after(ms));
}

fn stats(world: &World, i: usize) -> Stats {
    world.sites[i].node.as_ref().map(Node::stats).unwrap()
}

fn events(world: &mut World, i: usize) -> Vec<Event> {
    std::mem::take(&mut world.sites[i].events)
}

#[test]
fn a_node_with_another_key_is_not_heard() {
    let mut world = pair();
    world.sites[2].key = 2;
    world.start(2);
    pass(&mut world, 5_000);
    world.traffic(2, packet(Protocol::Udp, 500, 1));
    pass(&mut world, 1_000);
    assert!(world.is_ready(2), "it goes on alone");
    assert!(stats(&world, 0).auth_failures > 0 && stats(&world, 2).auth_failures > 0);
    assert_eq!((world.content(0).len(), world.content(2).len()), (9, 1));
    assert_eq!(world.sites[0].node.as_ref().unwrap().peers().count(), 1);
}

#[test]
fn changes_that_were_never_reported_are_found_when_it_is_known_that_there_are_some() {
    let mut world = pair();
    let (now, settings) = (world.now, world.settings.clone());
    let nat64 = &mut world.sites[0].nat64;
    let new = packet(Protocol::Udp, 77, 1);
    assert!(nat64.outbound(now, &settings, &Nameless, new).is_ok());
    let old = packet(Protocol::ALL[0], 0, 1).client;
    assert!(nat64.bib_remove(Protocol::ALL[0], Some(old), None).is_ok());
    nat64.drain_changes(&mut Vec::new());
    pass(&mut world, 1_000);
    let before = world.content(1);
    assert_ne!(world.content(0), before);
    world.sites[0].node.as_mut().unwrap().rescan(HANDLE);
    pass(&mut world, 1_000);
    assert_eq!(world.disagreement(), None);
    assert_eq!(world.content(1).len(), before.len(), "one came, one went");
    assert_ne!(world.content(1), before);
}

#[test]
fn garbage_is_counted_and_does_nothing() {
    let mut world = pair();
    let (before, root) = (stats(&world, 1), world.versions(1));
    let mut dice = Dice(1);
    for i in 0..20_000 {
        let len = dice.below(120) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| dice.roll() as u8).collect();
        if i % 2 == 0
            && let Some(first) = bytes.get_mut(..2)
        {
            // Far enough to be looked at more closely.
            first.copy_from_slice(&[1, 1]);
        }
        world.arrive(0, 1, bytes);
    }
    let now = stats(&world, 1);
    let refused = now.malformed + now.auth_failures - before.malformed - before.auth_failures;
    assert_eq!(refused, 20_000);
    assert!(now.auth_failures > 5_000);
    assert_eq!(
        (now.received_records, world.versions(1)),
        (before.received_records, root)
    );
}

/// So packets do not wait for it: tables are locked for what is read.
#[test]
fn what_strangers_send_is_not_read() {
    let mut world = pair();
    let recorded = world.recorded.clone();
    let now = world.now;
    let node = world.sites[1].node.as_mut().unwrap();
    for bytes in &recorded {
        assert!(node.open(now, addr_of(2), &mut bytes.clone()).is_none());
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(node.open(now, addr_of(0), &mut forged).is_none());
    }
    assert!(node.stats().replayed > 0 && node.stats().auth_failures > 0);
}

#[test]
fn replayed_datagrams_do_nothing() {
    let mut world = pair();
    let recorded = world.recorded.clone();
    let before = (stats(&world, 1), world.content(1));
    for bytes in &recorded {
        world.arrive(2, 1, bytes.clone());
    }
    let after = stats(&world, 1);
    assert!(after.replayed > before.0.replayed);
    assert_eq!(
        (after.applied, world.content(1)),
        (before.0.applied, before.1)
    );
    let peers = world.sites[1].node.as_ref().unwrap().peers();
    assert!(
        peers.into_iter().all(|(_, addr)| addr == addr_of(0)),
        "led astray"
    );
}

/// Everything that a former life of the cluster sent is genuine and means nothing any more.
#[test]
fn recordings_of_former_lives_are_not_believed() {
    let mut world = pair();
    let recorded = world.recorded.clone();
    for i in 0..2 {
        world.crash(i, false);
    }
    world.start(1);
    pass(&mut world, 5_000);
    for _ in 0..3 {
        for bytes in &recorded {
            world.arrive(0, 1, bytes.clone());
        }
        pass(&mut world, 700);
    }
    assert!(world.is_ready(1));
    assert_eq!(world.content(1).len(), 0);
    assert!(stats(&world, 1).unproven > 0);
    assert_eq!(world.sites[1].node.as_ref().unwrap().peers().count(), 0);
}

#[test]
fn a_different_configuration_is_said_loudly_and_nothing_is_shared() {
    let mut world = pair();
    world.sites[2].config = 2;
    world.start(2);
    pass(&mut world, 5_000);
    let mismatch = |event: &Event| matches!(event, Event::Mismatch { .. });
    assert_eq!(
        events(&mut world, 2).iter().filter(|e| mismatch(e)).count(),
        2
    );
    assert!(events(&mut world, 0).iter().any(mismatch));
    assert!(!world.is_ready(2) && world.content(2).is_empty());
    // The administrator repairs it.
    let now = world.now;
    let node = world.sites[2].node.as_mut().unwrap();
    node.set_instance_config(now, HANDLE, 1);
    pass(&mut world, 3_000);
    assert_eq!(world.disagreement(), None);
    assert_eq!(world.content(2).len(), 9);
    let matches = |event: &Event| matches!(event, Event::Match { peer: 3, .. });
    assert_eq!(
        events(&mut world, 0).iter().filter(|e| matches(e)).count(),
        1
    );
}

#[test]
fn two_nodes_with_one_number_are_found_out() {
    let mut world = pair();
    world.start(2);
    let wrong = world.sites[2].node.take().unwrap();
    drop(wrong);
    // Site 2 runs a node with the number of site 0.
    world.sites.swap(0, 2);
    world.start(0);
    world.sites.swap(0, 2);
    pass(&mut world, 3_000);
    let told = [0, 2].map(|i| {
        let events = events(&mut world, i);
        events.contains(&Event::DuplicateNode)
    });
    assert!(told.contains(&true), "{told:?}");
}

/// A packet reaches the node that does not have its mapping.
#[test]
fn who_has_this_mapping_is_answered() {
    let mut world = pair();
    // Node 1 does not hear of it by itself, for the batch is not written yet.
    let given = world.traffic(0, packet(Protocol::Udp, 700, 2)).unwrap();
    let remote = Transport4::new([198, 51, 100, 2].into(), 443);
    let key = |v4| Question::client(Protocol::Udp, v4, remote);
    let now = world.now;
    let node = world.sites[1].node.as_mut().unwrap();
    let known = node.query(now, HANDLE, key(given));
    let unknown = node.query(now, HANDLE, key(Transport4::new([192, 0, 2, 1].into(), 9)));
    world.collect(1);
    pass(&mut world, 10);
    let events = events(&mut world, 1);
    for (query, finding) in [(known, Finding::Found), (unknown, Finding::Nobody)] {
        assert!(
            events.contains(&Event::Answered { query, finding }),
            "{events:?}"
        );
    }
    let client = packet(Protocol::Udp, 700, 2).client;
    assert_eq!(
        world.sites[1].nat64.mapped_v6(Protocol::Udp, given),
        Some(client)
    );
    // Nobody is there to answer.
    world.crash(0, false);
    let now = world.now;
    let node = world.sites[1].node.as_mut().unwrap();
    let query = node.query(now, HANDLE, key(Transport4::new([192, 0, 2, 1].into(), 9)));
    world.collect(1);
    pass(&mut world, 200);
    let finding = Finding::Silence;
    assert!(super::attacks::events(&mut world, 1).contains(&Event::Answered { query, finding }));
}

/// A node asks, and hears within 10 ms what came of it.
fn ask(world: &mut World, i: usize, question: Question) -> Option<Finding> {
    let now = world.now;
    let query = world.sites[i].node.as_mut().unwrap();
    let query = query.query(now, HANDLE, question);
    world.collect(i);
    pass(world, 10);
    let findings = [Finding::Found, Finding::Nobody, Finding::Silence];
    let events = events(world, i);
    findings.into_iter().find(|finding| {
        events.contains(&Event::Answered {
            query,
            finding: *finding,
        })
    })
}

/// A client's packets take another way in the middle of a connection.
#[test]
fn what_a_client_is_hidden_behind_is_answered() {
    let mut world = pair();
    let flow = packet(Protocol::Tcp, 700, 2);
    let given = world.traffic(0, flow).unwrap();
    let (protocol, v6) = (flow.protocol, flow.client);
    let asked = ask(&mut world, 1, Question::Address { protocol, v6 });
    assert_eq!(asked, Some(Finding::Found));
    assert_eq!(world.sites[1].nat64.mapped_v4(protocol, v6), Some(given));
    let protocol = Protocol::Udp;
    let asked = ask(&mut world, 1, Question::Address { protocol, v6 });
    assert_eq!(asked, Some(Finding::Nobody));
    let stats = stats(&world, 1);
    let counted = (stats.queries_sent, stats.queries_found, stats.queries_vain);
    assert_eq!(counted, (2, 1, 1));
}

/// Whoever is asked has so much to tell that the flow in question is far behind.
#[test]
fn what_is_asked_for_goes_before_everything_else() {
    let mut world = pair();
    world.delay = 1;
    let mut given = None;
    for server in 0..=255 {
        given = world.traffic(0, packet(Protocol::Udp, 700, server));
    }
    let remote = packet(Protocol::Udp, 700, 255).remote;
    let question = Question::client(Protocol::Udp, given.unwrap(), remote);
    let sent = stats(&world, 0).sent_records;
    assert_eq!(ask(&mut world, 1, question), Some(Finding::Found));
    let key = SessionKey {
        protocol: Protocol::Udp,
        v4: given.unwrap(),
        remote,
    };
    let table: &dyn Table = &world.sites[1].nat64;
    assert!(table.session(&key).is_some());
    // Who asks does not have everything told at once.
    assert!(stats(&world, 0).sent_records - sent < 100);
}

/// Of two that are asked one is dead: who knows it is enough, but who does not is not.
#[test]
fn one_answer_is_enough_if_it_is_yes() {
    let mut world = pair();
    world.start(2);
    pass(&mut world, 6_000);
    let given = world.traffic(0, packet(Protocol::Udp, 700, 2)).unwrap();
    world.crash(2, false);
    let remote = packet(Protocol::Udp, 700, 2).remote;
    let question = |v4| Question::client(Protocol::Udp, v4, remote);
    assert_eq!(ask(&mut world, 1, question(given)), Some(Finding::Found));
    let nobody = Transport4::new(given.addr, 9);
    assert_eq!(ask(&mut world, 1, question(nobody)), None);
    pass(&mut world, 200);
    assert_eq!(stats(&world, 1).queries_timed_out, 1);
    let node = world.sites[1].node.as_ref().unwrap();
    assert!(node.can_ask(HANDLE));
    world.crash(0, false);
    pass(&mut world, 3_000);
    let node = world.sites[1].node.as_ref().unwrap();
    assert!(!node.can_ask(HANDLE));
}

#[test]
fn the_share_of_a_dead_node_is_taken_over_and_its_mappings_live() {
    let mut world = World::new(3, 3, |config| {
        config.share = crate::replica::peer::ShareMode::Auto;
    });
    for i in 0..3 {
        world.start(i);
    }
    pass(&mut world, 8_000);
    let share = |world: &World, i: usize| world.sites[i].node.as_ref().unwrap().share();
    assert_eq!((0..3).map(|i| share(&world, i).slices()).sum::<u32>(), 64);
    let given = world.traffic(2, packet(Protocol::Udp, 1, 1)).unwrap();
    pass(&mut world, 100);
    let before = share(&world, 0);
    world.crash(2, false);
    pass(&mut world, 2_500);
    assert_eq!(share(&world, 0), before, "it may come back");
    pass(&mut world, 2_500);
    assert_eq!((0..2).map(|i| share(&world, i).slices()).sum::<u32>(), 64);
    assert_eq!(share(&world, 0).and(before), before);
    for i in 0..2 {
        let flow = packet(Protocol::Udp, 1, 1);
        assert_eq!(world.traffic(i, flow), Some(given));
    }
}

/// A large table comes over whole, in order of deadlines or not.
#[test]
fn a_joining_node_gets_everything() {
    let mut world = World::new(5, 2, |_| {});
    world.start(0);
    pass(&mut world, 4_000);
    for server in 0..100 {
        for client in 0..40 {
            world.traffic(0, packet(Protocol::Udp, client, server));
        }
    }
    pass(&mut world, 1_000);
    world.start(1);
    let begun = world.now;
    while !world.is_ready(1) {
        pass(&mut world, 10);
        assert!(world.now.since(begun) < 5_000, "too long");
    }
    assert_eq!(world.content(1).len(), 4_000);
    assert_eq!(world.content(0), world.content(1));
    let sent = stats(&world, 0).sent_bytes / 4_000;
    assert!(sent < 90, "{sent} bytes a session");
}

/// Of sessions that are busy a record is sent now and then, not for every packet.
#[test]
fn a_busy_flow_costs_a_record_an_interval() {
    let mut world = pair();
    let before = stats(&world, 0).sent_records;
    for _ in 0..2_000 {
        world.traffic(0, packet(Protocol::Udp, 1, 1));
        world.traffic(0, packet(Protocol::Icmp, 2, 1));
        pass(&mut world, 10);
    }
    let sent = stats(&world, 0).sent_records - before;
    assert!((4..=10).contains(&sent), "{sent} records in 20 s");
}

#[test]
fn a_node_that_takes_leave_is_gone_at_once() {
    let mut world = pair();
    world.sites[0].node.as_mut().unwrap().leave();
    world.collect(0);
    world.crash(0, false);
    pass(&mut world, 5);
    assert!(events(&mut world, 1).contains(&Event::PeerDown(1)));
    let site = &mut world.sites[1];
    let mut here = Here(&mut site.nat64, &world.settings);
    let node = site.node.as_mut().unwrap();
    node.on_tick(Tick(0), &mut here);
    assert!(node.is_ready(), "time that goes back does no harm");
}

/// Lets time pass until a node has heard of another one what there is, but nothing of that yet.
fn until_it_compares(world: &mut World, i: usize) {
    let begun = world.now;
    loop {
        pass(world, 1);
        let node = world.sites[i].node.as_ref().unwrap();
        let round = node.instances[&HANDLE].round.as_ref();
        if round.is_some_and(|round| round.knowledge().is_some() && round.outcome().is_none()) {
            return;
        }
        assert!(world.now.since(begun) < 5_000, "it compares nothing");
    }
}

/// The next life of who was asked has nothing: that is not what was asked about.
#[test]
fn a_joining_node_does_not_take_a_new_life_for_the_one_it_asked() {
    let mut world = pair();
    world.sides = vec![0, 1, 0];
    world.start(2);
    until_it_compares(&mut world, 2);
    world.crash(0, false);
    world.start(0);
    pass(&mut world, 1_500);
    assert!(!world.is_ready(2), "it has {}", world.content(2).len());
    world.sides.fill(0);
    pass(&mut world, 3_000);
    assert_eq!(world.disagreement(), None);
    assert_eq!(world.content(2).len(), 9);
}

/// Nor is it when only the instance was taken out and put in again.
#[test]
fn a_joining_node_does_not_learn_from_an_instance_that_joins_itself() {
    let mut world = pair();
    world.sides = vec![0, 1, 0];
    world.start(2);
    until_it_compares(&mut world, 2);
    let site = &mut world.sites[0];
    let node = site.node.as_mut().unwrap();
    node.remove_instance(HANDLE);
    let added = node.add_instance(world.now, Flavour::Nat64, "default", site.config);
    assert!(added.is_ok());
    pass(&mut world, 1_500);
    assert!(!world.is_ready(2), "it has {}", world.content(2).len());
    world.sides.fill(0);
    pass(&mut world, 4_000);
    assert!((0..3).all(|i| world.is_ready(i)));
    assert_eq!(world.content(2).len(), 9);
}

/// The batches of an instance that was taken out and put in again are no duplicates of earlier ones.
#[test]
fn an_instance_that_comes_back_is_heard_at_once() {
    let mut world = pair();
    let site = &mut world.sites[0];
    let node = site.node.as_mut().unwrap();
    node.remove_instance(HANDLE);
    let added = node.add_instance(world.now, Flavour::Nat64, "default", site.config);
    assert!(added.is_ok());
    pass(&mut world, 1_000);
    assert!(world.is_ready(0));
    let (known, duplicates) = (world.content(1).len(), stats(&world, 1).duplicates);
    for server in 100..103 {
        world.traffic(0, packet(Protocol::Udp, 9, server));
        pass(&mut world, 200);
    }
    assert_eq!(world.content(1).len(), known + 3);
    assert_eq!(stats(&world, 1).duplicates, duplicates);
}

/// What a life knew and the next one does not have was not deleted.
#[test]
fn nothing_is_dropped_because_a_node_begins_anew_during_a_comparison() {
    for pause in (230..=250).step_by(2) {
        // Nothing can be sent again, so what is lost has to be compared.
        let mut world = World::new(7, 2, |config| config.history = 1);
        world.start(0);
        world.start(1);
        pass(&mut world, 6_000);
        for (client, server) in (0..40).flat_map(|c| (0..20).map(move |s| (c, s))) {
            world.traffic(0, packet(Protocol::Udp, client, server));
        }
        pass(&mut world, 1_000);
        world.sides[0] = 1;
        for server in 100..102 {
            world.traffic(0, packet(Protocol::Udp, 0, server));
            pass(&mut world, 100);
        }
        world.sides.fill(0);
        until_it_compares(&mut world, 1);
        let before = world.content(1);
        assert!(before.len() >= 800);
        world.crash(0, false);
        pass(&mut world, pause);
        world.start(0);
        pass(&mut world, 3_000);
        let after = world.content(1);
        let dropped = before.keys().filter(|key| !after.contains_key(key));
        assert_eq!(dropped.count(), 0, "after {pause} ms");
        assert_eq!(world.disagreement(), None);
    }
}
