//! Taking the controller's orders: fences first, then each guest's order against its record.
//!
//! ```text
//!  order's life      older        same                         newer
//!  no record           –          –                            new record, due
//!  on this host      say again    newer fence: due             made anew; the earlier life is removed first
//!                                 older: say again
//!  nothing left      say again    newer fence: noted; gone     new record, due
//!                                 stays gone, failed is due
//! ```

use crate::fence::Fence;
use crate::guest::Goal;
use crate::order::{DesiredSet, GuestOrder, ImageOrder, NetworkOrder};

use super::Entry;
use super::draft::Draft;
use super::input::Refused;
use super::ledger::{GuestRecord, Made, Stand};

impl Draft<'_> {
    pub(crate) fn take_set(&mut self, set: &DesiredSet) -> Result<(), Refused> {
        self.check_set(set)?;
        let new_epoch = set.fence.epoch > self.head.record.seen.epoch;
        let first = !self.head.fed;
        self.head.record.seen = set.fence;
        self.head.record.cloud = Some(set.cloud);
        self.head.fed = true;
        for order in &set.guests {
            self.take_order(order);
            self.take_parts(order, &set.images, &set.networks);
        }
        if new_epoch || (first && self.head.complete_from_ask.is_none()) {
            self.owe_complete();
        }
        for order in &set.guests {
            self.advance(order.id);
        }
        Ok(())
    }

    fn check_set(&self, set: &DesiredSet) -> Result<(), Refused> {
        let record = &self.head.record;
        if !self.head.booted || self.head.observed_ask.is_none() || record.incarnation.is_none() {
            return Err(Refused::NotReady);
        }
        if set.hypervisor != record.hypervisor {
            return Err(Refused::OtherHypervisor(set.hypervisor));
        }
        if record.cloud.is_some_and(|cloud| cloud != set.cloud) {
            return Err(Refused::OtherCloud(set.cloud));
        }
        if set.fence < record.seen {
            return Err(Refused::Stale { given: set.fence, seen: record.seen });
        }
        Ok(())
    }

    fn take_order(&mut self, order: &GuestOrder) {
        let Some(entry) = self.entry(order.id) else {
            self.insert(Entry::new(record_of(order)));
            return;
        };
        let record = &mut entry.record;
        if order.life > record.life {
            take_new_life(entry, order);
        } else if order.life < record.life || order.order < record.fence() {
            self.say_again(order.id);
        } else if record.order.is_none() || order.order > record.fence() {
            take_newer(entry, order);
        } else if record.ended() {
            self.say_again(order.id);
        } else {
            record.provisioned |= order.provisioned;
        }
    }

    /// Image and network may be told anew without a new order.
    fn take_parts(&mut self, order: &GuestOrder, images: &[ImageOrder], networks: &[NetworkOrder]) {
        let Some(entry) = self.entry(order.id) else { return };
        let record = &mut entry.record;
        if record.life != order.life || record.ended() {
            return;
        }
        if let Some(image) = images.iter().find(|image| image.id == order.image) {
            record.image = Some(image.clone());
        }
        if let Some(network) = networks.iter().find(|network| network.id == order.network) {
            record.network = Some(network.clone());
        }
    }
}

fn record_of(order: &GuestOrder) -> GuestRecord {
    GuestRecord {
        id: order.id,
        life: order.life,
        order: Some(order.clone()),
        claim: Some(order.claim()),
        image: None,
        network: None,
        provisioned: order.provisioned,
        // What has held data is looked for, and is lost when it is not found.
        made: if order.provisioned { Made::Whole } else { Made::Nothing },
        stand: Stand::Due,
        local: None,
        deed_begun: None,
        deed_done: None,
        leftover: None,
        buried: 0,
    }
}

/// A newer life of the guest: nothing of the old one counts, but what of it may be here is removed first.
/// A call under way for the old life stays known until it has ended.
fn take_new_life(entry: &mut Entry, order: &GuestOrder) {
    let old = &entry.record;
    let clean = old.made == Made::Nothing && !matches!(old.stand, Stand::Lost(_));
    let leftover = if clean { old.leftover } else { Some(old.life) };
    entry.record = GuestRecord { leftover, ..record_of(order) };
    entry.steps.clear();
    entry.restart_due = None;
    entry.restarts = 0;
}

fn take_newer(entry: &mut Entry, order: &GuestOrder) {
    let record = &mut entry.record;
    if record.order.is_none() {
        // The ledger was lost, and with it what was done: a deed is done at most once, so not again.
        record.deed_begun = order.deed.map(|deed| deed.fence);
    }
    record.claim = Some(order.claim());
    record.provisioned |= order.provisioned;
    record.local = None;
    if record.stand == Stand::Gone {
        // A life ends once. The newer fence is noted, so that the report answers it.
        record.order = Some(GuestOrder { goal: Goal::Gone, ssh_keys: Vec::new(), ..order.clone() });
    } else {
        record.order = Some(order.clone());
        record.buried = 0;
        entry.replan();
    }
    entry.steps.clear();
    entry.said = None;
}

/// Whether this goal lets a guest run.
pub(crate) fn runs(goal: Goal) -> bool {
    goal == Goal::Running
}

/// The fence of a deed that the record's order asks for and that was not begun yet.
pub(crate) fn pending_deed(record: &GuestRecord) -> Option<Fence> {
    let deed = record.order.as_ref()?.deed?;
    (Some(deed.fence) > record.deed_begun.max(record.deed_done)).then_some(deed.fence)
}
