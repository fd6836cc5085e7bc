//! What is measured of a guest, asked of the stages configured for it.

use haar_api::agent::{MetricsRequest, MetricsResponse};
use uuid::Uuid;

use super::App;
use super::reply::{Answer, json, with_job};
use crate::local::action;
use crate::local::runners::{Owner, Refused};

/// `kind` is `cpu`, `disk` or `nic`.
pub(super) async fn get(app: &App, guest: &str, kind: &'static str) -> Answer {
    let (id, guest) = app.guest(guest).await?;
    let action = action::full_name(&format!("{kind}Metrics"), guest.is_container());
    let stages = app.plan.stages(&action).ok_or(Refused::NotConfigured(action))?;
    let _turn = app.throttles.info(Owner::Guest(id)).await?;
    let mut last = MetricsResponse::default();
    for stage in stages {
        let request = MetricsRequest { guest: &guest, kind, args: &stage.args };
        last = app.hands.ask(stage, &request).await?;
    }
    let response = match kind {
        "cpu" => json(http::StatusCode::OK, &last.cpu),
        "disk" => json(http::StatusCode::OK, &last.disk),
        _ => json(http::StatusCode::OK, &last.nic),
    };
    Ok(with_job(response, Uuid::new_v4()))
}
