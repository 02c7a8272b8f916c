// SPDX-License-Identifier: GPL-2.0-or-later
//! The nftables expressions and set elements that the `nftnl` crate does not have.

use std::ffi::{CStr, c_void};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr::NonNull;

use nftnl::expr::{Expression, Ipv4HeaderField, Ipv6HeaderField, Lookup, NetworkHeaderField};
use nftnl::nftnl_sys::{self as sys, nftnl_expr};
use nftnl::set::{Set, SetKey};
use nftnl::{MsgType, NlMsg, ProtoFamily, Rule, Table};

use super::ranges::Range;

/// A table that belongs to the socket it is added by: nobody else can change it, and `flush
/// ruleset` passes it over. It stays when the socket is closed, without an owner then. Kernels
/// before 6.9 refuse it.
pub(super) struct OwnedTable<'a>(pub(super) &'a Table);

#[allow(unsafe_code)]
// Safety: adds eight bytes to a message of a few dozen; far below the largest netlink message.
unsafe impl NlMsg for OwnedTable<'_> {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, msg_type: MsgType) {
        // From linux/netfilter/nf_tables.h.
        const NFTA_TABLE_FLAGS: u16 = 2;
        const OWNER_AND_PERSIST: u32 = 0x2 | 0x4;
        // Safety: as promised by the caller.
        unsafe { self.0.write(buf, seq, msg_type) };
        let mut attribute = [0; 8];
        attribute[..2].copy_from_slice(&8u16.to_ne_bytes());
        attribute[2..4].copy_from_slice(&NFTA_TABLE_FLAGS.to_ne_bytes());
        attribute[4..].copy_from_slice(&OWNER_AND_PERSIST.to_be_bytes());
        let header = buf.cast::<libc::nlmsghdr>();
        // Safety: what was just written begins with its header and is a multiple of four bytes
        // long; behind it the caller's buffer has room for the largest message.
        unsafe {
            let end = (*header).nlmsg_len as usize;
            buf.cast::<[u8; 8]>()
                .byte_add(end)
                .write_unaligned(attribute);
            (*header).nlmsg_len += attribute.len() as u32;
        }
    }
}

/// `queue num FIRST-LAST`: to one of `total` queues, chosen by a hash that keeps the packets of
/// two hosts in order.
pub(super) struct Queue {
    pub(super) first: u16,
    pub(super) total: u16,
    /// While nobody reads the queue, packets pass. Otherwise they are dropped then.
    pub(super) bypass: bool,
}

/// `NFT_QUEUE_FLAG_BYPASS`, and `NFQ_FLAG_BYPASS` in linux/netfilter/xt_NFQUEUE.h.
const BYPASS: u16 = 1;

impl Expression for Queue {
    #[allow(unsafe_code)]
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        let expr = allocate(c"queue");
        let set = |attribute: u32, value| {
            // Safety: `expr` is a live expression of the type the attributes are for.
            unsafe { sys::nftnl_expr_set_u16(expr.as_ptr(), attribute as u16, value) }
        };
        set(sys::NFTNL_EXPR_QUEUE_NUM, self.first);
        set(sys::NFTNL_EXPR_QUEUE_TOTAL, self.total);
        set(
            sys::NFTNL_EXPR_QUEUE_FLAGS,
            if self.bypass { BYPASS } else { 0 },
        );
        expr
    }
}

/// The iptables target NFQUEUE, which does what [`Queue`] does on kernels without that.
pub(super) struct CompatQueue {
    pub(super) first: u16,
    pub(super) total: u16,
    /// As there.
    pub(super) bypass: bool,
}

impl Expression for CompatQueue {
    #[allow(unsafe_code)]
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        const REVISION: u32 = 3;
        // struct xt_NFQ_info_v3 (queuenum, queues_total, flags), padded to what XT_ALIGN demands.
        let flags = if self.bypass { BYPASS } else { 0 };
        let info = [self.first, self.total, flags, 0];
        let expr = allocate(c"target");
        // Safety: `expr` is a live expression of the type the attributes are for. libnftnl copies
        // the name but keeps the information and frees it, hence memory of malloc's; the copy
        // stays within both arrays.
        unsafe {
            let kept = libc::calloc(1, size_of_val(&info));
            if kept.is_null() {
                std::process::abort();
            }
            kept.cast::<[u16; 4]>().write_unaligned(info);
            let expr = expr.as_ptr();
            sys::nftnl_expr_set_str(expr, sys::NFTNL_EXPR_TG_NAME as u16, c"NFQUEUE".as_ptr());
            sys::nftnl_expr_set_u32(expr, sys::NFTNL_EXPR_TG_REV as u16, REVISION);
            sys::nftnl_expr_set(
                expr,
                sys::NFTNL_EXPR_TG_INFO as u16,
                kept,
                size_of_val(&info) as u32,
            );
        }
        expr
    }
}

/// `notrack`: connection tracking leaves the packet alone.
pub(super) struct Notrack;

impl Expression for Notrack {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        allocate(c"notrack")
    }
}

/// `tproxy to :PORT`, the port taken from register 1.
pub(super) struct Tproxy;

impl Expression for Tproxy {
    #[allow(unsafe_code)]
    fn to_expr(&self, rule: &Rule<'_>) -> NonNull<nftnl_expr> {
        let family = rule.get_chain().get_table().get_family();
        // Unspecified means both families.
        let family = if family == ProtoFamily::Inet {
            libc::NFPROTO_UNSPEC as u32
        } else {
            family as u32
        };
        let expr = allocate(c"tproxy");
        let set = |attribute: u32, value| {
            // Safety: `expr` is a live expression of the type the attributes are for.
            unsafe { sys::nftnl_expr_set_u32(expr.as_ptr(), attribute as u16, value) }
        };
        set(sys::NFTNL_EXPR_TPROXY_FAMILY, family);
        set(sys::NFTNL_EXPR_TPROXY_REG_PORT, libc::NFT_REG_1 as u32);
        expr
    }
}

/// `!= @set`, for what register 1 holds.
pub(super) struct Outside(pub(super) Lookup);

impl Expression for Outside {
    #[allow(unsafe_code)]
    fn to_expr(&self, rule: &Rule<'_>) -> NonNull<nftnl_expr> {
        let expr = self.0.to_expr(rule);
        // Safety: `expr` is a live expression of the type the attribute is for.
        unsafe {
            sys::nftnl_expr_set_u32(
                expr.as_ptr(),
                sys::NFTNL_EXPR_LOOKUP_FLAGS as u16,
                libc::NFT_LOOKUP_F_INV as u32,
            );
        }
        expr
    }
}

/// The addresses of one family, numbered.
pub(super) trait Address: SetKey {
    const HIGHEST: u128;
    /// Where a packet has its destination.
    const DESTINATION: NetworkHeaderField;

    /// The address with a number up to `HIGHEST`.
    fn from_number(number: u128) -> Self;
}

impl Address for Ipv4Addr {
    const HIGHEST: u128 = u32::MAX as u128;
    const DESTINATION: NetworkHeaderField = NetworkHeaderField::Ipv4(Ipv4HeaderField::Daddr);

    fn from_number(number: u128) -> Self {
        Self::from(number as u32)
    }
}

impl Address for Ipv6Addr {
    const HIGHEST: u128 = u128::MAX;
    const DESTINATION: NetworkHeaderField = NetworkHeaderField::Ipv6(Ipv6HeaderField::Daddr);

    fn from_number(number: u128) -> Self {
        Self::from(number)
    }
}

/// An anonymous set of address ranges.
///
/// `ranges` are first and last address, ascending, and neither overlap nor touch: the kernel
/// refuses a set in which the end of a range is the start of the next.
#[allow(unsafe_code)]
pub(super) fn range_set<'a, A: Address>(id: u32, table: &'a Table, ranges: &[Range]) -> Set<'a, A> {
    let flags = libc::NFT_SET_ANONYMOUS | libc::NFT_SET_CONSTANT | libc::NFT_SET_INTERVAL;
    let mut set = Set::new(c"__set%d", id, table, table.get_family());
    let raw = set.as_ptr().as_ptr();
    // Safety: `raw` is the live set.
    unsafe { sys::nftnl_set_set_u32(raw, sys::NFTNL_SET_FLAGS as u16, flags as u32) };
    for (first, last) in ranges {
        set.add(&A::from_number(*first));
        // The end is the first address behind the range; a range up to the highest address has
        // none.
        if *last >= A::HIGHEST {
            continue;
        }
        let end = A::from_number(last + 1).data();
        // Safety: the element is live until the set takes it over; key and length describe an
        // array that is copied.
        unsafe {
            let element = sys::nftnl_set_elem_alloc();
            if element.is_null() {
                std::process::abort();
            }
            sys::nftnl_set_elem_set(
                element,
                sys::NFTNL_SET_ELEM_KEY as u16,
                end.as_ptr().cast(),
                end.len() as u32,
            );
            sys::nftnl_set_elem_set_u32(
                element,
                sys::NFTNL_SET_ELEM_FLAGS as u16,
                libc::NFT_SET_ELEM_INTERVAL_END as u32,
            );
            sys::nftnl_set_elem_add(raw, element);
        }
    }
    set
}

#[allow(unsafe_code)]
fn allocate(name: &CStr) -> NonNull<nftnl_expr> {
    // Safety: takes a C string. It fails for names that libnftnl does not know, which the names
    // in this file are not, or when memory runs out, where the nftnl crate aborts as well.
    NonNull::new(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) })
        .unwrap_or_else(|| std::process::abort())
}
