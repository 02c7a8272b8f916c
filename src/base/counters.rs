// SPDX-License-Identifier: GPL-2.0-or-later
//! What is counted, and why a packet is dropped or left alone: one word for statistics, trace
//! lines and test assertions alike.
//!
//! Names and order are those that `jool stats display` has; exporters depend on both.

use core::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

macro_rules! counters {
    ($($variant:ident $name:literal $text:literal)*) => {
        /// One statistic; for packets that were not translated, also the reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter { $($variant),* }

        impl Counter {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name operators and exporters know it by.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it counts, in a sentence.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

counters! {
    Received6 "JSTAT_RECEIVED6"
        "IPv6 packets handed to the instance, before any check."
    Received4 "JSTAT_RECEIVED4"
        "IPv4 packets handed to the instance, before any check."
    Success "JSTAT_SUCCESS"
        "Packets translated and sent on."
    BibEntries "JSTAT_BIB_ENTRIES"
        "Mappings (BIB entries) that exist now."
    Sessions "JSTAT_SESSIONS"
        "Sessions that exist now."
    Enomem "JSTAT_ENOMEM"
        "Packets dropped because memory ran out."
    XlatorDisabled "JSTAT_XLATOR_DISABLED"
        "Packets left alone because manually-enabled is false."
    Pool6Unset "JSTAT_POOL6_UNSET"
        "Packets left alone because pool6 is not set."
    SkbShared "JSTAT_SKB_SHARED"
        "Kernel detail of Jool; stays 0 here."
    L3hdrOffset "JSTAT_L3HDR_OFFSET"
        "Kernel detail of Jool; stays 0 here."
    SkbTruncated "JSTAT_SKB_TRUNCATED"
        "Packets dropped because a header ends too early."
    Hdr6 "JSTAT_HDR6"
        "IPv6 packets dropped because their header (or the quoted one) contradicts itself."
    Hdr4 "JSTAT_HDR4"
        "IPv4 packets dropped because their header (or the quoted one) contradicts itself."
    UnknownL4Proto "JSTAT_UNKNOWN_L4_PROTO"
        "Packets left alone because they are neither TCP, UDP nor ICMP."
    UnknownIcmp6Type "JSTAT_UNKNOWN_ICMP6_TYPE"
        "ICMPv6 messages of a type or code that has no ICMPv4 counterpart."
    UnknownIcmp4Type "JSTAT_UNKNOWN_ICMP4_TYPE"
        "ICMPv4 messages of a type or code that has no ICMPv6 counterpart."
    DoubleIcmp6Error "JSTAT_DOUBLE_ICMP6_ERROR"
        "ICMPv6 errors dropped because they are about an ICMPv6 error."
    DoubleIcmp4Error "JSTAT_DOUBLE_ICMP4_ERROR"
        "ICMPv4 errors dropped because they are about an ICMPv4 error."
    UnknownProtoInner "JSTAT_UNKNOWN_PROTO_INNER"
        "ICMP errors left alone because they are about neither TCP, UDP nor ICMP."
    HairpinLoop "JSTAT_HAIRPIN_LOOP"
        "IPv6 packets dropped because their source is inside pool6."
    Pool6Mismatch "JSTAT_POOL6_MISMATCH"
        "IPv6 packets left alone because their destination is outside pool6."
    Pool4Mismatch "JSTAT_POOL4_MISMATCH"
        "IPv4 packets left alone because their destination is outside pool4."
    Icmp6Filter "JSTAT_ICMP6_FILTER"
        "Pings dropped by drop-icmpv6-info."
    UntranslatableDst6 "JSTAT_UNTRANSLATABLE_DST6"
        "IPv6 destinations that hold no IPv4 address."
    UntranslatableDst4 "JSTAT_UNTRANSLATABLE_DST4"
        "IPv4 sources that no IPv6 address can be made of."
    Rfc6056F "JSTAT_6056_F"
        "Failures of the port selection hash; stays 0 here."
    MaskDomainNotFound "JSTAT_MASK_DOMAIN_NOT_FOUND"
        "IPv6 packets dropped because pool4 has no entry for their protocol and mark."
    Bib6NotFound "JSTAT_BIB6_NOT_FOUND"
        "IPv6 packets dropped because no free IPv4 transport address was found."
    Bib4NotFound "JSTAT_BIB4_NOT_FOUND"
        "IPv4 packets left alone because no mapping exists for their destination."
    SessionNotFound "JSTAT_SESSION_NOT_FOUND"
        "ICMP errors left alone because no mapping exists for the quoted packet."
    Adf "JSTAT_ADF"
        "IPv4 packets refused by address-dependent-filtering."
    V4Syn "JSTAT_V4_SYN"
        "IPv4 SYNs dropped by drop-externally-initiated-tcp."
    Syn6Expected "JSTAT_SYN6_EXPECTED"
        "IPv6 TCP packets dropped because they open nothing and no mapping exists."
    Syn4Expected "JSTAT_SYN4_EXPECTED"
        "IPv4 TCP packets dropped because they open nothing and no mapping exists."
    Type1pkt "JSTAT_TYPE1PKT"
        "IPv4 SYNs held back because no mapping exists yet (simultaneous open)."
    Type2pkt "JSTAT_TYPE2PKT"
        "IPv4 SYNs held back by address-dependent-filtering (simultaneous open)."
    SoExists "JSTAT_SO_EXISTS"
        "IPv4 SYNs dropped because the same one is held back already."
    SoFull "JSTAT_SO_FULL"
        "IPv4 SYNs refused because maximum-simultaneous-opens are held back already."
    SixFourSrc "JSTAT64_SRC"
        "IPv6 packets left alone because their destination has no IPv4 form (the name says source; it is kept as Jool has it)."
    SixFourDst "JSTAT64_DST"
        "IPv6 packets left alone because their source has no IPv4 form (the name says destination; it is kept as Jool has it)."
    SixFourPskbCopy "JSTAT64_PSKB_COPY"
        "Kernel detail of Jool; stays 0 here."
    SixFour6791Enoent "JSTAT64_6791_ENOENT"
        "ICMPv6 errors dropped because no IPv4 source was found for them."
    SixFourIcmpCsum "JSTAT64_ICMP_CSUM"
        "ICMPv6 errors dropped because of a wrong checksum."
    SixFourUntranslatableParamProbPtr "JSTAT64_UNTRANSLATABLE_PARAM_PROB_PTR"
        "ICMPv6 parameter problems dropped because their pointer has no IPv4 counterpart."
    SixFourTtl "JSTAT64_TTL"
        "IPv6 packets dropped because their hop limit ran out."
    SixFourFragmentedIcmp "JSTAT64_FRAGMENTED_ICMP"
        "Fragmented ICMPv6 packets dropped."
    SixFour2xFrag "JSTAT64_2XFRAG"
        "IPv6 packets dropped because they have two fragment headers."
    SixFourFragThenExt "JSTAT64_FRAG_THEN_EXT"
        "IPv6 packets dropped because an extension header follows the fragment header."
    SixFourSegmentsLeft "JSTAT64_SEGMENTS_LEFT"
        "IPv6 packets dropped because a routing header has segments left."
    FourSixSrc "JSTAT46_SRC"
        "IPv4 packets left alone because their source has no IPv6 form."
    FourSixDst "JSTAT46_DST"
        "IPv4 packets left alone because their destination has no IPv6 form."
    FourSixPskbCopy "JSTAT46_PSKB_COPY"
        "Kernel detail of Jool; stays 0 here."
    FourSix6791Enoent "JSTAT46_6791_ENOENT"
        "ICMPv4 errors dropped because no IPv6 source was found for them."
    FourSixIcmpCsum "JSTAT46_ICMP_CSUM"
        "ICMPv4 errors dropped because of a wrong checksum."
    FourSixUntranslatableParamProblemPtr "JSTAT46_UNTRANSLATABLE_PARAM_PROBLEM_PTR"
        "ICMPv4 parameter problems dropped because their pointer has no IPv6 counterpart."
    FourSixTtl "JSTAT46_TTL"
        "IPv4 packets dropped because their time to live ran out."
    FourSixFragmentedIcmp "JSTAT46_FRAGMENTED_ICMP"
        "Fragmented ICMPv4 packets dropped."
    FourSixSrcRoute "JSTAT46_SRC_ROUTE"
        "IPv4 packets dropped because of an unexpired source route."
    FourSixFragmentedZeroCsum "JSTAT46_FRAGMENTED_ZERO_CSUM"
        "IPv4 UDP packets dropped because they have no checksum and none can be computed."
    FourSixBadMtu "JSTAT46_BAD_MTU"
        "IPv4 packets dropped because the way on carries less than 1280 bytes."
    FailedRoutes "JSTAT_FAILED_ROUTES"
        "Packets left alone because the translated packet has no route."
    PktTooBig "JSTAT_PKT_TOO_BIG"
        "Packets dropped because they exceed the next link's MTU and may not be fragmented."
    DstOutput "JSTAT_DST_OUTPUT"
        "Packets that the kernel did not take back."
    Icmp6errSuccess "JSTAT_ICMP6ERR_SUCCESS"
        "ICMPv6 errors that were sent."
    Icmp6errFailure "JSTAT_ICMP6ERR_FAILURE"
        "ICMPv6 errors that could not be sent."
    Icmp4errSuccess "JSTAT_ICMP4ERR_SUCCESS"
        "ICMPv4 errors that were sent."
    Icmp4errFailure "JSTAT_ICMP4ERR_FAILURE"
        "ICMPv4 errors that could not be sent."
    IcmpextBig "JSTAT_ICMPEXT_BIG"
        "ICMP errors dropped because their extension length exceeds their size."
    MaptAddr4 "JSTAT_MAPT_ADDR4"
        "IPv4 packets whose source is outside the BMR's IPv4 prefix, and left alone; or another customer's, and dropped."
    MaptPsid "JSTAT_MAPT_PSID"
        "Packets whose ports or addresses disagree with their mapping rule: a wrong PSID offset or EA-bits length does this."
    MaptPool6 "JSTAT_MAPT_POOL6"
        "IPv6 packets left alone because an address of theirs is neither in the DMR (pool6) nor in an FMR."
    MaptEui6p "JSTAT_MAPT_EUI6P"
        "IPv6 packets left alone because their destination is not the CE's MAP address."
    MaptFmr6 "JSTAT_MAPT_FMR6"
        "IPv6 packets left alone because their source is in no FMR."
    MaptFmr4 "JSTAT_MAPT_FMR4"
        "IPv4 packets left alone because their destination is in no FMR."
    MaptBadPrpf "JSTAT_MAPT_BAD_PRPF"
        "Packets refused by an impossible rule; stays 0 here, where such rules cannot be."
    JooldEmpty "JSTAT_JOOLD_EMPTY"
        "Session sync: nothing to send when looked at."
    JooldTimeout "JSTAT_JOOLD_TIMEOUT"
        "Session sync: sent because the deadline came."
    JooldMissingAck "JSTAT_JOOLD_MISSING_ACK"
        "Session sync: held back because the last packet was not acknowledged."
    JooldAdOngoing "JSTAT_JOOLD_AD_ONGOING"
        "Session sync: sent because of an advertisement."
    JooldPktFull "JSTAT_JOOLD_PKT_FULL"
        "Session sync: sent because a packet was full."
    JooldQueuing "JSTAT_JOOLD_QUEUING"
        "Session sync: held back to gather more."
    JooldSssQueued "JSTAT_JOOLD_SSS_QUEUED"
        "Session sync: sessions put into the queue."
    JooldSssSent "JSTAT_JOOLD_SSS_SENT"
        "Session sync: sessions sent."
    JooldSssRcvd "JSTAT_JOOLD_SSS_RCVD"
        "Session sync: sessions received."
    JooldSssEnospc "JSTAT_JOOLD_SSS_ENOSPC"
        "Session sync: sessions not sent because the queue was full."
    JooldPktSent "JSTAT_JOOLD_PKT_SENT"
        "Session sync: packets sent."
    JooldPktRcvd "JSTAT_JOOLD_PKT_RCVD"
        "Session sync: packets received."
    JooldAds "JSTAT_JOOLD_ADS"
        "Session sync: advertisements asked for."
    JooldAcks "JSTAT_JOOLD_ACKS"
        "Session sync: acknowledgements."
    SyncPeers "JSTAT_SYNC_PEERS"
        "Cluster: other gateways that are alive now."
    SyncLag "JSTAT_SYNC_LAG"
        "Cluster: milliseconds that the changes heard last had waited to be sent."
    SyncGaps "JSTAT_SYNC_GAPS"
        "Cluster: gaps in what another gateway sent, that it was asked about."
    SyncRepairs "JSTAT_SYNC_REPAIRS"
        "Cluster: datagrams that closed such a gap."
    SyncDuplicates "JSTAT_SYNC_DUPLICATES"
        "Cluster: datagrams that had been here before."
    SyncAuthFailures "JSTAT_SYNC_AUTH_FAILURES"
        "Cluster: datagrams from somebody who does not have the key."
    SyncMalformed "JSTAT_SYNC_MALFORMED"
        "Cluster: datagrams that could not be understood."
    SyncConflicts "JSTAT_SYNC_CONFLICTS"
        "Cluster: mappings deleted because a younger one contradicts them."
    SyncDrift "JSTAT_SYNC_DRIFT"
        "Cluster: sessions in which tables differed although they should not have."
    Unknown "JSTAT_UNKNOWN"
        "Packets dropped for a reason that has no counter of its own; also TCP when pool4 is exhausted."
}

/// The counters of one instance. Counting wraps at 2^64 and is reset only with the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Counters {
    pub const fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] = self.0[counter as usize].wrapping_add(n);
    }

    pub const fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Overwrites a gauge.
    pub const fn set(&mut self, counter: Counter, value: u64) {
        self.0[counter as usize] = value;
    }

    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// All counters in display order.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|c| (*c, self.get(*c)))
    }
}

/// Counters that several threads add to at once.
///
/// Each thread has a lane of its own, so that what one counts does not take the line of the
/// processor's cache away that another one counts in.
#[derive(Debug)]
pub struct Lanes(Box<[CachePadded<[AtomicU64; Counter::ALL.len()]>; LANES]>);

impl Lanes {
    /// Adds what a thread has counted. More threads than lanes share some, which is slower and
    /// nothing else.
    pub fn add(&self, lane: usize, counted: &Counters) {
        let Some(lane) = self.0.get(lane % LANES) else {
            return;
        };
        for (sum, count) in lane.iter().zip(counted.0).filter(|(_, count)| *count != 0) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds the sums of all lanes to `counters`.
    pub fn add_to(&self, counters: &mut Counters) {
        for lane in self.0.iter() {
            for (counter, sum) in Counter::ALL.iter().zip(lane.iter()) {
                counters.add(*counter, sum.load(Ordering::Relaxed));
            }
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        let lane = || CachePadded::new([const { AtomicU64::new(0) }; Counter::ALL.len()]);
        Self(Box::new(std::array::from_fn(|_| lane())))
    }
}

/// Lanes of an instance, 640 bytes each.
const LANES: usize = 16;

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_summed() {
        let lanes = Lanes::default();
        for lane in 0..2 * LANES {
            let mut counted = Counters::default();
            counted.add(Counter::Received4, lane as u64);
            counted.count(Counter::Unknown);
            lanes.add(lane, &counted);
        }
        let mut counters = Counters::default();
        counters.count(Counter::Success);
        lanes.add_to(&mut counters);
        let sums = [Counter::Received4, Counter::Success, Counter::Unknown];
        assert_eq!(sums.map(|c| counters.get(c)), [496, 1, 32]);
    }
}
