// SPDX-License-Identifier: GPL-2.0-or-later
//! Why a packet is not translated, by the reason that the engine gives and `stats display` counts:
//! the clause or the setting behind it, and what changes it.

use crate::base::counters::Counter;
use crate::cli::{JOOL, JOOL_MAPT, JOOL_SIIT};
use crate::model::Flavour;

/// What there is to say about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// Clauses of RFCs, and configuration keys.
    pub(super) why: &'static str,
    /// A command for a shell, or a comment where there is none. Words in capitals stand for what is
    /// known of the packet and its instance: `JOOL` for the instance's program, `PROTO` for `tcp`,
    /// `udp` or `icmp`, `ADDRESS` for its IPv4 destination; those that are not known remain.
    pub(super) remedy: &'static str,
}

/// `None` for what is no reason: numbers of packets, of sessions, of other gateways.
pub(super) fn advice(reason: Counter, flavour: Flavour) -> Option<Advice> {
    let (siit, mapt) = (flavour == Flavour::Siit, flavour == Flavour::Mapt);
    let (why, remedy) = match reason {
        Counter::XlatorDisabled => (
            "manually-enabled",
            "JOOL -i NAME global update manually-enabled true",
        ),
        Counter::Pool6Unset => ("pool6", "JOOL -i NAME global update pool6 64:ff9b::/96"),
        Counter::SkbTruncated => (
            "RFC 8200 section 3, RFC 791 section 3.1",
            "# a header ends too early: look at the sender, or at how the packet was captured",
        ),
        Counter::Hdr6 => (
            "RFC 8200 section 3",
            "# the header contradicts the packet: look at the sender",
        ),
        Counter::Hdr4 => (
            "RFC 791 section 3.1",
            "# the header contradicts the packet: look at the sender",
        ),
        Counter::UnknownL4Proto if siit => (
            "RFC 7915 section 5.1",
            "# the protocol has no meaning in the other family",
        ),
        Counter::UnknownL4Proto => (
            "RFC 6146 section 3.5",
            "# only TCP, UDP and ICMP have ports to be told apart by; SIIT translates others, too",
        ),
        Counter::UnknownIcmp6Type => (
            "RFC 7915 section 5.2",
            "# the message ends here; it is for the link, or has no ICMPv4 counterpart",
        ),
        Counter::UnknownIcmp4Type => (
            "RFC 7915 section 4.2",
            "# the message ends here; it has no ICMPv6 counterpart",
        ),
        Counter::DoubleIcmp6Error => (
            "RFC 4443 section 2.4",
            "# nobody may send an error about an error: look at its sender",
        ),
        Counter::DoubleIcmp4Error => (
            "RFC 1122 section 3.2.2",
            "# nobody may send an error about an error: look at its sender",
        ),
        Counter::UnknownProtoInner => (
            "RFC 6146 section 3.6.1",
            "# the error is about a packet that was never translated",
        ),
        Counter::HairpinLoop => (
            "RFC 6146 section 3.5, pool6",
            "ip -6 route get SOURCE # who sends from inside pool6, or sends translated packets back?",
        ),
        Counter::Pool6Mismatch => (
            "pool6",
            "JOOL -i NAME global display # the DNS64 of the clients must have the same pool6",
        ),
        Counter::Pool4Mismatch => (
            "pool4",
            "JOOL -i NAME pool4 add --PROTO ADDRESS PORT # or leave it: it is for this host",
        ),
        Counter::Icmp6Filter => (
            "drop-icmpv6-info",
            "JOOL -i NAME global update drop-icmpv6-info false",
        ),
        Counter::UntranslatableDst6 => (
            "RFC 6052 section 2.2, RFC 1122 section 3.2.1.3",
            "# the address inside is no host's: look at the DNS64, or at who typed it",
        ),
        Counter::UntranslatableDst4 => (
            "RFC 6052 section 2.2",
            "# the address has no IPv6 form: look at its sender",
        ),
        Counter::MaskDomainNotFound => (
            "pool4",
            "JOOL -i NAME pool4 add --PROTO ADDRESS 61001-65535 --mark MARK",
        ),
        Counter::Bib6NotFound | Counter::Unknown if mapt => (
            "RFC 7597 section 5.1, bmr",
            "JOOL -i NAME global display # all ports of the customer are in use: shorter timeouts, or a rule with more",
        ),
        Counter::Bib4NotFound if mapt => (
            "RFC 7599 section 8.1, mapt-napt",
            "tylo mapt forward PROTO PORT HOST#PORT -i NAME # lets strangers in; else the host begins",
        ),
        Counter::Bib6NotFound => (
            "pool4, RFC 6146 section 3.5.1.1",
            "JOOL -i NAME pool4 add --PROTO ADDRESS 61001-65535 --mark MARK",
        ),
        Counter::Bib4NotFound => (
            "RFC 6146 section 3.5.1",
            "JOOL -i NAME bib add --PROTO CLIENT6#PORT ADDRESS#PORT # lets strangers in; else the client begins",
        ),
        Counter::SessionNotFound => (
            "RFC 6146 section 3.6.1",
            "JOOL -i NAME bib display --PROTO --numeric # the packet in the error belongs to none of these",
        ),
        Counter::Adf => (
            "address-dependent-filtering, RFC 6146 section 3.5.1",
            "JOOL -i NAME global update address-dependent-filtering false",
        ),
        Counter::V4Syn => (
            "drop-externally-initiated-tcp",
            "JOOL -i NAME global update drop-externally-initiated-tcp false",
        ),
        Counter::Syn6Expected => (
            "RFC 6146 section 3.5.2.2, tcp-est-timeout",
            "JOOL -i NAME session display --tcp --numeric # it ended, or its SYN went another way",
        ),
        Counter::Syn4Expected => (
            "RFC 6146 section 3.5.2.2, tcp-est-timeout",
            "JOOL -i NAME session display --tcp --numeric # it ended, or was never one of these",
        ),
        Counter::Type1pkt => (
            "RFC 6146 section 3.5.2.2",
            "JOOL -i NAME bib add --tcp CLIENT6#PORT ADDRESS#PORT # or the client opens within 6 seconds",
        ),
        Counter::Type2pkt => (
            "RFC 6146 section 3.5.2.2, address-dependent-filtering",
            "JOOL -i NAME global update address-dependent-filtering false # or the client opens within 6 seconds",
        ),
        Counter::SoExists => (
            "RFC 6146 section 3.5.2.2",
            "# the first one is held back for at most 6 seconds; the client has not opened yet",
        ),
        Counter::SoFull => (
            "maximum-simultaneous-opens",
            "JOOL -i NAME global update maximum-simultaneous-opens 100",
        ),
        Counter::SixFourSrc if siit => (
            "RFC 7915 section 5.1, eamt, pool6, denylist4",
            "JOOL -i NAME eamt add IPV6-PREFIX IPV4-PREFIX # for the destination",
        ),
        Counter::SixFourDst if siit => (
            "RFC 7915 section 5.1, eamt, pool6, denylist4",
            "JOOL -i NAME eamt add IPV6-PREFIX IPV4-PREFIX # for the source",
        ),
        Counter::SixFourSrc => (
            "RFC 6052 section 2.2, pool6",
            "JOOL -i NAME global display # no IPv4 address is in the destination",
        ),
        Counter::SixFourDst => (
            "RFC 4291 section 2.5",
            "# no router forwards from such an address: look at the sender",
        ),
        Counter::FourSixSrc if siit => (
            "RFC 7915 section 4.1, eamt, pool6, denylist4",
            "JOOL -i NAME eamt add IPV6-PREFIX IPV4-PREFIX # for the source",
        ),
        Counter::FourSixDst if siit => (
            "RFC 7915 section 4.1, eamt, pool6, denylist4",
            "JOOL -i NAME eamt add IPV6-PREFIX IPV4-PREFIX # for the destination",
        ),
        Counter::FourSixSrc => (
            "RFC 1122 section 3.2.1.3",
            "# no router forwards from such an address: look at the sender",
        ),
        Counter::FourSixDst => (
            "RFC 7599 section 8.1",
            "# the destination is this host's, or a private one: nothing to translate",
        ),
        Counter::SixFour6791Enoent => (
            "RFC 6791 section 5, rfc6791v4-prefix",
            "JOOL -i NAME global update rfc6791v4-prefix IPV4-PREFIX",
        ),
        Counter::FourSix6791Enoent => (
            "RFC 6791 section 5, rfc6791v6-prefix",
            "JOOL -i NAME global update rfc6791v6-prefix IPV6-PREFIX",
        ),
        Counter::SixFourIcmpCsum | Counter::FourSixIcmpCsum => (
            "RFC 7915 section 4.2, RFC 7915 section 5.2",
            "# the checksum is wrong: the message was damaged on its way",
        ),
        Counter::SixFourUntranslatableParamProbPtr => (
            "RFC 7915 section 5.2",
            "# what the error points at has no place in an IPv4 header",
        ),
        Counter::FourSixUntranslatableParamProblemPtr => (
            "RFC 7915 section 4.2",
            "# what the error points at has no place in an IPv6 header",
        ),
        Counter::SixFourTtl => (
            "RFC 7915 section 5.1",
            "# the hop limit ran out here: normal for traceroute; otherwise look for a loop of routes",
        ),
        Counter::FourSixTtl => (
            "RFC 7915 section 4.1",
            "# the time to live ran out here: normal for traceroute; otherwise look for a loop of routes",
        ),
        Counter::SixFourFragmentedIcmp => (
            "RFC 7915 section 1.2",
            "# ICMP checksums of fragments cannot be translated; send smaller pings",
        ),
        Counter::FourSixFragmentedIcmp => (
            "RFC 7915 section 1.2",
            "# ICMP checksums of fragments cannot be translated; send smaller pings",
        ),
        Counter::SixFour2xFrag | Counter::SixFourFragThenExt => (
            "RFC 8200 section 4.1",
            "# no sane host sends such headers: look at the sender",
        ),
        Counter::SixFourSegmentsLeft => (
            "RFC 7915 section 5.1",
            "# source routes end at a translator: send without one",
        ),
        Counter::FourSixSrcRoute => (
            "RFC 7915 section 4.1",
            "# source routes end at a translator: send without one",
        ),
        Counter::FourSixFragmentedZeroCsum => (
            "RFC 7915 section 4.5, amend-udp-checksum-zero",
            "# a fragment without a checksum cannot get one: the sender has to compute it",
        ),
        Counter::FourSixBadMtu => (
            "RFC 8200 section 5, lowest-ipv6-mtu",
            "JOOL -i NAME global update lowest-ipv6-mtu 1280",
        ),
        Counter::PktTooBig => (
            "RFC 7915 section 5.1",
            "# longer than any IPv4 packet: the sender gets an error and sends less",
        ),
        Counter::IcmpextBig => (
            "RFC 4884 section 4",
            "# the error's extension contradicts its length: look at its sender",
        ),
        Counter::MaptAddr4 => (
            "RFC 7597 section 5.2, bmr, end-user-ipv6-prefix",
            "tylo mapt check -i NAME # whose address the source is",
        ),
        Counter::MaptPsid => (
            "RFC 7599 section 8, RFC 7597 section 5.1, fmrt, bmr, mapt-lenient",
            "tylo mapt check -i NAME # a rule of one end may be wrong: its PSID offset, most often",
        ),
        Counter::MaptPool6 => (
            "RFC 7599 section 5.1, pool6, fmrt",
            "JOOL -i NAME fmrt add IPV6-PREFIX IPV4-PREFIX EA-BITS PSID-OFFSET # or another DMR",
        ),
        Counter::MaptEui6p => (
            "RFC 7599 section 8.2, end-user-ipv6-prefix",
            "tylo mapt check -i NAME # the destination is not this edge's MAP address",
        ),
        Counter::MaptFmr6 | Counter::MaptFmr4 => (
            "RFC 7597 section 5.2, fmrt",
            "JOOL -i NAME fmrt add IPV6-PREFIX IPV4-PREFIX EA-BITS PSID-OFFSET",
        ),
        Counter::Enomem => (
            "maximum-sessions, maximum-sessions-per-prefix",
            "JOOL -i NAME global update LIMIT N # 0 is no limit",
        ),
        Counter::Unknown => (
            "pool4, RFC 6146 section 3.5.2.3",
            "JOOL -i NAME pool4 add --PROTO ADDRESS 61001-65535 --mark MARK",
        ),
        Counter::Received6
        | Counter::Received4
        | Counter::Success
        | Counter::BibEntries
        | Counter::Sessions
        | Counter::SkbShared
        | Counter::L3hdrOffset
        | Counter::Rfc6056F
        | Counter::SixFourPskbCopy
        | Counter::FourSixPskbCopy
        | Counter::FailedRoutes
        | Counter::DstOutput
        | Counter::Icmp6errSuccess
        | Counter::Icmp6errFailure
        | Counter::Icmp4errSuccess
        | Counter::Icmp4errFailure
        | Counter::MaptBadPrpf
        | Counter::JooldEmpty
        | Counter::JooldTimeout
        | Counter::JooldMissingAck
        | Counter::JooldAdOngoing
        | Counter::JooldPktFull
        | Counter::JooldQueuing
        | Counter::JooldSssQueued
        | Counter::JooldSssSent
        | Counter::JooldSssRcvd
        | Counter::JooldSssEnospc
        | Counter::JooldPktSent
        | Counter::JooldPktRcvd
        | Counter::JooldAds
        | Counter::JooldAcks
        | Counter::SyncPeers
        | Counter::SyncLag
        | Counter::SyncGaps
        | Counter::SyncRepairs
        | Counter::SyncDuplicates
        | Counter::SyncAuthFailures
        | Counter::SyncMalformed
        | Counter::SyncConflicts
        | Counter::SyncDrift => return None,
    };
    Some(Advice { why, remedy })
}

/// The command that instances of a flavour are configured with.
pub(super) const fn program(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Nat64 => JOOL.program,
        Flavour::Siit => JOOL_SIIT.program,
        Flavour::Mapt => JOOL_MAPT.program,
    }
}
