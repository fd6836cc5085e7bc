//! The controller over real HTTP on port 0, with a real store in a temporary folder.
//!
//! [`cloud`] knows how a controller is started and asked, [`agent`] how a hypervisor speaks; the cases do not.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod cloud;

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod events;
#[cfg(test)]
mod guests;
#[cfg(test)]
mod images;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod nouns;
#[cfg(test)]
mod records;
#[cfg(test)]
mod revoked;
#[cfg(test)]
mod streams;
