//! The route table: every endpoint of `haar_api::table`, and who answers it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use haar_api::endpoint::{Endpoint, Permission};
use haar_api::problem::ErrorCode;
use haar_api::table::*;
use haar_core::fleet::command::GuestAction;
use haar_core::name::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ask::{Ask, Prove, shorten};
use super::body::read_json;
use super::handle::{AskedBy, RequestId};
use super::noun::{delete, list, list_subnets, patch, post, put, show};
use super::reply::{No, Reply};
use super::{App, agent, cloud, event, guest, image, job, open, stream, token};
use crate::wire::flavor::Flavors;
use crate::wire::fwgroup::FwGroups;
use crate::wire::guest::Guests;
use crate::wire::hypervisor::Hypervisors;
use crate::wire::image::Images;
use crate::wire::network::Networks;
use crate::wire::subnet::Subnets;
use crate::wire::token::Tokens;

/// The whole router.
pub(crate) fn router(app: Arc<App>) -> Router {
    routes(app).router.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

#[rustfmt::skip]
fn routes(app: Arc<App>) -> Routes {
    Routes::new(app)
        .ask::<Healthz, _, _>(open::healthz)
        .ask::<Readyz, _, _>(open::readyz)
        .ask::<Metrics, _, _>(open::metrics)
        .ask::<OpenApi, _, _>(open::openapi)
        .ask::<Page, _, _>(open::page)

        .ask::<Whoami, _, _>(cloud::whoami)
        .ask::<Status, _, _>(cloud::show_status)
        .ask::<Capacity, _, _>(cloud::capacity)
        .ask::<Check, _, _>(cloud::check)
        .tell::<Candidates, _, _>(guest::candidates)
        .ask::<EventStream, _, _>(event::follow)
        .ask::<ConfigShow, _, _>(cloud::config_show)
        .tell::<ConfigSet, _, _>(cloud::config_set)

        .ask::<HypervisorList, _, _>(list::<Hypervisors, _>)
        .tell::<HypervisorPost, _, _>(post::<Hypervisors, _>)
        .ask::<HypervisorShow, _, _>(show::<Hypervisors, _>)
        .tell::<HypervisorPut, _, _>(put::<Hypervisors, _>)
        .tell::<HypervisorSet, _, _>(patch::<Hypervisors, _>)
        .ask::<HypervisorDelete, _, _>(delete::<Hypervisors, _>)
        .ask::<HypervisorLost, _, _>(cloud::hypervisor_lost)

        .ask::<FlavorList, _, _>(list::<Flavors, _>)
        .tell::<FlavorPost, _, _>(post::<Flavors, _>)
        .ask::<FlavorShow, _, _>(show::<Flavors, _>)
        .tell::<FlavorPut, _, _>(put::<Flavors, _>)
        .tell::<FlavorSet, _, _>(patch::<Flavors, _>)
        .ask::<FlavorDelete, _, _>(delete::<Flavors, _>)

        .ask::<ImageList, _, _>(list::<Images, _>)
        .tell::<ImagePost, _, _>(post::<Images, _>)
        .ask::<ImageShow, _, _>(show::<Images, _>)
        .tell::<ImagePut, _, _>(put::<Images, _>)
        .tell::<ImageSet, _, _>(patch::<Images, _>)
        .ask::<ImageDelete, _, _>(image::delete)
        .stream::<ImageUpload, _, _>(image::upload)
        .ask::<ImageDownload, _, _>(image::download)

        .ask::<NetworkList, _, _>(list::<Networks, _>)
        .tell::<NetworkPost, _, _>(post::<Networks, _>)
        .ask::<NetworkShow, _, _>(show::<Networks, _>)
        .tell::<NetworkPut, _, _>(put::<Networks, _>)
        .tell::<NetworkSet, _, _>(patch::<Networks, _>)
        .ask::<NetworkDelete, _, _>(delete::<Networks, _>)
        .ask::<SubnetList, _, _>(list_subnets)
        .tell::<SubnetPost, _, _>(post::<Subnets, _>)
        .ask::<SubnetShow, _, _>(show::<Subnets, _>)
        .tell::<SubnetPut, _, _>(put::<Subnets, _>)
        .tell::<SubnetSet, _, _>(patch::<Subnets, _>)
        .ask::<SubnetDelete, _, _>(delete::<Subnets, _>)

        .ask::<FwGroupList, _, _>(list::<FwGroups, _>)
        .tell::<FwGroupPost, _, _>(post::<FwGroups, _>)
        .ask::<FwGroupShow, _, _>(show::<FwGroups, _>)
        .tell::<FwGroupPut, _, _>(put::<FwGroups, _>)
        .tell::<FwGroupSet, _, _>(patch::<FwGroups, _>)
        .ask::<FwGroupDelete, _, _>(delete::<FwGroups, _>)

        .ask::<GuestList, _, _>(guest::list)
        .tell::<GuestPost, _, _>(guest::post)
        .ask::<GuestShow, _, _>(show::<Guests, _>)
        .tell::<GuestPut, _, _>(guest::put)
        .tell::<GuestSet, _, _>(patch::<Guests, _>)
        .ask::<GuestDelete, _, _>(guest::delete)
        .ask::<GuestStart, _, _>(|ask| guest::act(ask, GuestAction::Start))
        .ask::<GuestShutdown, _, _>(|ask| guest::act(ask, GuestAction::Shutdown))
        .ask::<GuestPoweroff, _, _>(|ask| guest::act(ask, GuestAction::Poweroff))
        .ask::<GuestReboot, _, _>(|ask| guest::act(ask, GuestAction::Reboot))
        .ask::<GuestRecreate, _, _>(|ask| guest::act(ask, GuestAction::Recreate))
        .ask::<GuestAdopt, _, _>(|ask| guest::act(ask, GuestAction::Adopt))
        .ask::<GuestLog, _, _>(stream::log)
        .stream::<GuestConsole, _, _>(stream::console)

        .ask::<JobList, _, _>(job::list)
        .ask::<JobShow, _, _>(job::show)
        .ask::<JobRetry, _, _>(job::retry)

        .ask::<TokenList, _, _>(list::<Tokens, _>)
        .tell::<TokenPost, _, _>(token::post)
        .ask::<TokenShow, _, _>(show::<Tokens, _>)
        .ask::<TokenDelete, _, _>(delete::<Tokens, _>)

        .tell::<AgentHello, _, _>(agent::take_hello)
        .ask::<AgentFeed, _, _>(agent::poll)
        .tell::<AgentReport, _, _>(agent::take_report)
        .ask::<AgentBlob, _, _>(agent::blob)
        .ask::<AgentImage, _, _>(image::for_agent)
        .stream::<AgentStream, _, _>(stream::dial)
}

type Answering = Pin<Box<dyn Future<Output = (Reply, Option<Name>)> + Send>>;
type Run = Arc<dyn Fn(Arc<App>, Request) -> Answering + Send + Sync>;

/// The table under construction. Every row takes a handler of its endpoint's own [`Ask`], which exists only
/// for callers with that endpoint's permission.
struct Routes {
    app: Arc<App>,
    router: Router,
}

impl Routes {
    fn new(app: Arc<App>) -> Routes {
        Routes { app, router: Router::new() }
    }

    /// A row without a body.
    fn ask<E, H, F>(self, handler: H) -> Routes
    where
        E: Endpoint + 'static,
        E::Permission: Prove,
        E::Query: Send,
        H: Fn(Ask<E>) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        self.add::<E>(Arc::new(move |app, request| {
            Box::pin(async move {
                let (mut parts, _) = request.into_parts();
                let mut caller = None;
                let reply = match Ask::of(app, &mut parts, &mut caller).await {
                    Ok(ask) => handler(ask).await,
                    Err(no) => Err(no),
                };
                (reply, caller)
            })
        }))
    }

    /// A row with a JSON body, read only once the caller is known to be allowed.
    fn tell<E, H, F>(self, handler: H) -> Routes
    where
        E: Endpoint + 'static,
        E::Permission: Prove,
        E::Query: Send,
        E::Body: DeserializeOwned + Serialize + Send,
        H: Fn(Ask<E>, E::Body) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        self.add::<E>(Arc::new(move |app, request| {
            Box::pin(async move {
                let limit = app.limits.json_bytes;
                let (mut parts, body) = request.into_parts();
                let headers = parts.headers.clone();
                let mut caller = None;
                let ask = match Ask::of(app, &mut parts, &mut caller).await {
                    Ok(ask) => ask,
                    Err(no) => return (Err(no), caller),
                };
                parts.headers = headers;
                let request = Request::from_parts(parts, body);
                match read_json(request, limit, E::Permission::ACCESS).await {
                    Ok(body) => (handler(ask, body).await, caller),
                    Err(no) => (Err(no), caller),
                }
            })
        }))
    }

    /// A row whose handler takes the connection or a long body itself.
    fn stream<E, H, F>(self, handler: H) -> Routes
    where
        E: Endpoint + 'static,
        E::Permission: Prove,
        E::Query: Send,
        H: Fn(Ask<E>, Request) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        self.add::<E>(Arc::new(move |app, request| {
            Box::pin(async move {
                let (mut parts, body) = request.into_parts();
                let mut caller = None;
                let reply = match Ask::of(app, &mut parts, &mut caller).await {
                    Ok(ask) => handler(ask, Request::from_parts(parts, body)).await,
                    Err(no) => Err(no),
                };
                (reply, caller)
            })
        }))
    }

    fn add<E: Endpoint>(self, run: Run) -> Routes {
        let app = Arc::clone(&self.app);
        Routes { app: self.app, router: add(self.router, E::METHOD, E::PATH, app, run) }
    }
}

/// Apart from the rows' types, so that axum's machinery is compiled once.
fn add(router: Router, method: &str, path: &str, app: Arc<App>, run: Run) -> Router {
    let filter = match method {
        "GET" => MethodFilter::GET,
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "PATCH" => MethodFilter::PATCH,
        _ => MethodFilter::DELETE,
    };
    let answer = move |request: Request| {
        let (app, run) = (Arc::clone(&app), Arc::clone(&run));
        async move {
            let id = id_of(&request);
            let (reply, caller) = run(app, request).await;
            let mut response = reply.unwrap_or_else(|no| no.response(&id));
            if let Some(name) = caller {
                response.extensions_mut().insert(AskedBy(name));
            }
            response
        }
    };
    router.route(path, on(filter, answer))
}

fn id_of(request: &Request) -> Arc<str> {
    request.extensions().get::<RequestId>().map_or_else(|| Arc::from(""), |id| Arc::clone(&id.0))
}

async fn no_such_path(request: Request) -> Response {
    let path = shorten(request.uri().path());
    let message = format!("there is no path {path}; /openapi.json lists them all");
    No::of(ErrorCode::NotFoundRoute, message).response(&id_of(&request))
}

async fn no_such_method(request: Request) -> Response {
    let message = format!("{} cannot be done to {}", request.method(), shorten(request.uri().path()));
    No::of(ErrorCode::MethodNotAllowed, message).response(&id_of(&request))
}
