// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets through a MAP-T instance (RFC 7599): addresses by mapping rules (RFC 7597), or else by
//! the prefix of the default mapping rule.

use super::Env;
use crate::base::counters::Counter;
use crate::map::Mapt;
use crate::wire::Refusal;
use crate::wire::output::Output;

/// What a MAP-T instance has besides settings and counters.
pub(super) struct Mapping {
    pub(super) mapt: Mapt,
}

impl Mapping {
    pub(super) fn new() -> Self {
        Self {
            mapt: Mapt::default(),
        }
    }

    pub(super) fn six(
        &mut self,
        _env: &Env<'_>,
        _bytes: &[u8],
        _out: &mut Output,
    ) -> Result<(), Refusal> {
        Err(Refusal::accept(Counter::XlatorDisabled))
    }

    pub(super) fn four(
        &mut self,
        _env: &Env<'_>,
        _bytes: &[u8],
        _out: &mut Output,
    ) -> Result<(), Refusal> {
        Err(Refusal::accept(Counter::XlatorDisabled))
    }
}
