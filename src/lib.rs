// SPDX-License-Identifier: GPL-2.0-or-later
//! tylo: a NAT64 gateway in userspace (work in progress).
pub mod base;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod engine;
pub mod model;
pub mod nat64;
pub mod ruleset;
pub mod store;
pub mod wire;
pub mod xlat;
