//! Where spans would go is looked at before anything changes.

use std::rc::Rc;

use clustertracing::api::node_tracing::{Blocker, NodeSettings, NodeTracingStatus, OutcomeResult, ReceiverKind, Verdict};
use clustertracing::api::{COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT, COLLECTOR_UID, NodeTracing, Reason, State};
use clustertracing::host::{Holder, Listener, Reach};

use crate::world::World;
use crate::{live, mk_agent, mk_object, mk_settings, off, on, result};

/// A node, and what its agent is to change.
struct Scene {
    world: Rc<World>,
    object: NodeTracing,
}

impl Scene {
    fn new(object: NodeTracing) -> Self {
        Self { world: World::new(), object }
    }

    fn external() -> Self {
        let settings =
            NodeSettings { endpoint: "10.96.0.20:4317".into(), receiver: ReceiverKind::External, ..mk_settings(State::Enabled, 10_000) };
        Self::new(mk_object(settings, 1))
    }

    fn listen(&self, port: u16, uid: u32) {
        let holder = Some(Holder { program: "nginx".into(), pid: 4242 });
        self.world.listeners.borrow_mut().insert(port, Listener { uid, holder });
    }

    /// The object's status after the agent has looked, and, where it may, acted.
    async fn look(&mut self) -> &NodeTracingStatus {
        live(&self.world, &mut self.object).await;
        self.object.status.as_ref().unwrap()
    }

    fn is_untouched(&self) -> bool {
        self.world.manifests() == World::new().manifests() && self.world.ours().is_empty()
    }
}

#[tokio::test]
async fn a_port_that_somebody_else_holds_refuses_the_target_and_the_grant_waits() {
    for port in [4317, COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT] {
        let mut scene = Scene::new(on(1));
        scene.listen(port, 101);
        let status = scene.look().await;
        let preflight = status.preflight.clone().unwrap();
        assert_eq!((preflight.verdict, preflight.reason, status.last_outcome.as_ref()), (Verdict::Refused, Some(Reason::PortTaken), None));
        assert!(preflight.message.contains(&format!("port {port} ")) && preflight.message.contains("nginx (pid 4242, uid 101)"));
        assert!(scene.is_untouched(), "{port}");
        scene.world.listeners.borrow_mut().clear();
        scene.look().await;
        assert_eq!(result(&scene.object), (OutcomeResult::Succeeded, None), "{port}");
    }
}

#[tokio::test]
async fn the_collectors_own_sockets_are_no_hindrance_and_nobodys_are_where_nothing_is_to_be_sent() {
    let mut own = Scene::new(on(1));
    for port in [4317, COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT] {
        own.listen(port, COLLECTOR_UID);
    }
    own.look().await;
    assert_eq!(result(&own.object), (OutcomeResult::Succeeded, None));
    // Somebody takes the port later: what the node has, it keeps, and it can be given back.
    own.listen(4317, 101);
    assert_eq!(own.look().await.preflight.as_ref().unwrap().verdict, Verdict::Unchanged);
    own.object.spec = off(2).spec;
    own.look().await;
    assert_eq!(result(&own.object), (OutcomeResult::Succeeded, None));
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_keeps_the_node_as_it_is_until_it_does() {
    for cause in [Reach::Refused, Reach::Silent, Reach::NoRoute, Reach::NotResolved, Reach::Failed] {
        let mut scene = Scene::external();
        scene.world.reaches.set(cause);
        let status = scene.look().await;
        let [Blocker { reason: Reason::EndpointUnreachable, message }] = &status.blockers[..] else { panic!("{:?}", status.blockers) };
        assert!(message.contains("10.96.0.20:4317") && message.contains(&cause.to_string()), "{message}");
        assert_eq!((status.preflight.as_ref().unwrap().verdict, status.last_outcome.as_ref()), (Verdict::Ready, None));
        assert!(scene.is_untouched(), "{cause}");
        scene.world.reaches.set(Reach::Connected);
        scene.look().await;
        assert_eq!(result(&scene.object), (OutcomeResult::Succeeded, None), "{cause}");
    }
}

#[tokio::test]
async fn what_a_node_has_does_not_depend_on_an_endpoint_that_goes_away() {
    let mut scene = Scene::external();
    scene.look().await;
    scene.world.reaches.set(Reach::Refused);
    // nobody else's port matters to somebody else's endpoint
    scene.listen(COLLECTOR_METRICS_PORT, 101);
    let mut agent = mk_agent(&scene.world).await;
    let status = agent.turn(&scene.object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    assert_eq!((status.preflight.unwrap().verdict, status.blockers), (Verdict::Unchanged, vec![]));
}
