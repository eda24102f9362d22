@0xb8c3d1f07a4e52d9;

# Control messages between client, server and worker. A connection carries, after the handshake, a sequence of
# standard Cap'n Proto stream-framed messages with root struct Message. Meaning of the fields: rain/protocol/messages.py.
#
# Data fields marked u32, u64, f64 are columns: raw little-endian values. Those marked msgpack hold one msgpack value;
# a list that would be all nil travels as an empty field. Ids are numbers inside a session.

struct Message {
  union {
    heartbeat @0 :Heartbeat;
    newSession @1 :NewSession;
    closeSession @2 :CloseSession;
    constantPiece @3 :ConstantPiece;
    submitChunk @4 :SubmitChunk;
    submitCommit @5 :SubmitCommit;
    wait @6 :Wait;
    stopWaiting @7 :StopWaiting;
    fetchObjects @8 :FetchObjects;
    unkeepObjects @9 :UnkeepObjects;
    getInfos @10 :GetInfos;
    getServerInfo @11 :GetServerInfo;
    stopServer @12 :StopServer;
    sessionCreated @13 :SessionCreated;
    accepted @14 :Accepted;
    refused @15 :Refused;
    waitDone @16 :WaitDone;
    objectsFetched @17 :ObjectsFetched;
    infos @18 :Infos;
    serverInfo @19 :ServerInfo;
    sessionWarning @20 :SessionWarning;
    workerHello @21 :WorkerHello;
    tasksStarted @22 :TasksStarted;
    tasksDone @23 :TasksDone;
    taskFailed @24 :TaskFailed;
    tasksReturned @25 :TasksReturned;
    objectsStored @26 :ObjectsStored;
    objectsMissing @27 :ObjectsMissing;
    workerInfo @28 :WorkerInfo;
    workerWelcome @29 :WorkerWelcome;
    assignTasks @30 :AssignTasks;
    withdrawTasks @31 :WithdrawTasks;
    cancelTasks @32 :CancelTasks;
    deleteObjects @33 :DeleteObjects;
    endSession @34 :EndSession;
    getWorkerInfo @35 :GetWorkerInfo;
    stopWorker @36 :StopWorker;
    getStates @37 :GetStates;
    cancel @38 :Cancel;
    states @39 :States;
    cancelled @40 :Cancelled;
    tasksStopped @41 :TasksStopped;
    submitBlock @42 :SubmitBlock;
    explain @43 :Explain;
    explained @44 :Explained;
    getDump @45 :GetDump;
    dump @46 :Dump;
    workerDigest @47 :WorkerDigest;
    listRuns @48 :ListRuns;
    workerRuns @49 :WorkerRuns;
    explainTasks @50 :ExplainTasks;
    tasksExplained @51 :TasksExplained;
    getCounts @52 :GetCounts;
    counts @53 :Counts;
    listSessions @54 :ListSessions;
    listTasks @55 :ListTasks;
    listObjects @56 :ListObjects;
    getSpecs @57 :GetSpecs;
    getTaskLog @58 :GetTaskLog;
    stopWorkers @59 :StopWorkers;
    checkNetwork @60 :CheckNetwork;
    sessionList @61 :SessionList;
    taskList @62 :TaskList;
    objectList @63 :ObjectList;
    specs @64 :Specs;
    taskLog @65 :TaskLog;
    networkChecked @66 :NetworkChecked;
    workerMonitoring @67 :WorkerMonitoring;
    taskLogRead @68 :TaskLogRead;
    peersProbed @69 :PeersProbed;
    readTaskLog @70 :ReadTaskLog;
    probePeers @71 :ProbePeers;
    valuesFetched @72 :ValuesFetched;
  }
}

struct Heartbeat {}

struct NewSession {
  seq @0 :UInt64;
  name @1 :Text;
  onFailure @2 :Text;
  persistent @3 :Bool;
}

struct CloseSession {
  seq @0 :UInt64;
  session @1 :UInt32;
}

struct ConstantPiece {
  session @0 :UInt32;
  objectId @1 :UInt32;
  offset @2 :UInt64;
  total @3 :UInt64;
  data @4 :Data;
}

struct SubmitChunk {
  session @0 :UInt32;
  templates @1 :Data;             # msgpack: list of bin
  tasks @2 :Data;                 # u32
  taskTemplates @3 :Data;         # u32
  args @4 :Data;                  # msgpack: list of bin or nil
  inputCounts @5 :Data;           # u32
  inputs @6 :Data;                # u32
  outputCounts @7 :Data;          # u32
  outputs @8 :Data;               # u32
  outputFlags @9 :Data;
  objects @10 :Data;              # u32
  objectFlags @11 :Data;
  objectSpecs @12 :Data;          # msgpack: list of bin or nil
  values @13 :Data;               # msgpack: list of bin or nil
}

struct SubmitBlock {
  session @0 :UInt32;
  templates @1 :Data;             # msgpack: list of bin
  template @2 :UInt32;
  first @3 :UInt32;
  members @4 :UInt32;
  start @5 :UInt32;
  inputs @6 :Data;                # u32
  keep @7 :Bool;
  args @8 :Data;
  argSizes @9 :Data;              # u32
  link @10 :Data;
  keeps @11 :Data;
  column @12 :Text;
}

struct SubmitCommit {
  seq @0 :UInt64;
  session @1 :UInt32;
  discard @2 :Bool;
}

struct Wait {
  seq @0 :UInt64;
  session @1 :UInt32;
  mode @2 :UInt8;
  ids @3 :Data;                   # u32
}

struct StopWaiting {
  waiting @0 :UInt64;
}

struct FetchObjects {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32, or a stretch
  unreachable @3 :Data;           # msgpack: list of str
  joined @4 :Bool;
}

struct UnkeepObjects {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32
}

struct GetStates {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32
}

struct GetCounts {
  seq @0 :UInt64;
  session @1 :UInt32;
  firsts @2 :Data;                # u32
  counts @3 :Data;                # u32
}

struct Cancel {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32
}

struct States {
  seq @0 :UInt64;
  states @1 :Data;                # u8
}

struct Counts {
  seq @0 :UInt64;
  tasks @1 :Data;                 # u32
  objects @2 :Data;               # u32
  failure @3 :Text;
}

struct Cancelled {
  seq @0 :UInt64;
  ids @1 :Data;                   # u32
}

struct TasksStopped {
  session @0 :UInt32;
  tasks @1 :Data;                 # u32
  runs @2 :Data;                  # u32
}

struct GetInfos {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32
}

struct GetServerInfo {
  seq @0 :UInt64;
}

struct StopServer {
  seq @0 :UInt64;
}

struct SessionCreated {
  seq @0 :UInt64;
  session @1 :UInt32;
}

struct Accepted {
  seq @0 :UInt64;
}

struct Refused {
  seq @0 :UInt64;
  failure @1 :Data;               # msgpack: map
}

struct WaitDone {
  seq @0 :UInt64;
  ids @1 :Data;                   # u32
}

struct ObjectsFetched {
  seq @0 :UInt64;
  sizes @1 :Data;                 # u64
  specs @2 :Data;                 # msgpack: list of bin or nil
  infos @3 :Data;                 # msgpack: list of bin or nil
  values @4 :Data;                # msgpack: list of bin or nil
  holders @5 :Data;               # msgpack: list of lists of str
}

struct ValuesFetched {
  seq @0 :UInt64;
  sizes @1 :Data;                 # u32
  values @2 :Data;
  infos @3 :Data;                 # msgpack: list of bin or nil
  kinds @4 :Data;
  column @5 :Text;
}

struct Infos {
  seq @0 :UInt64;
  states @1 :Data;
  infos @2 :Data;                 # msgpack: list of bin or nil
}

struct ServerInfo {
  seq @0 :UInt64;
  info @1 :Data;                  # msgpack: map
}

struct SessionWarning {
  session @0 :UInt32;
  text @1 :Text;
}

struct WorkerHello {
  address @0 :Text;
  resources @1 :Data;             # msgpack: map
  hostname @2 :Text;
  pid @3 :UInt32;
  python @4 :Text;
}

struct TasksStarted {
  session @0 :UInt32;
  tasks @1 :Data;                 # u32
  runs @2 :Data;                  # u32
}

struct TasksDone {
  session @0 :UInt32;
  tasks @1 :Data;                 # u32
  runs @2 :Data;                  # u32
  starts @3 :Data;                # f64
  durations @4 :Data;             # f64
  infos @5 :Data;                 # msgpack: list of bin or nil
  sizes @6 :Data;                 # u64
  outputInfos @7 :Data;           # msgpack: list of bin or nil
  values @8 :Data;                # msgpack: list of bin or nil
  blocks @9 :Data;                # msgpack: list of bin or nil
}

struct TaskFailed {
  session @0 :UInt32;
  task @1 :UInt32;
  run @2 :UInt32;
  failure @3 :Data;               # msgpack: map
  start @4 :Float64;
  duration @5 :Float64;
}

struct TasksReturned {
  session @0 :UInt32;
  tasks @1 :Data;                 # u32
  runs @2 :Data;                  # u32
}

struct ObjectsStored {
  session @0 :UInt32;
  objects @1 :Data;               # u32
}

struct ObjectsMissing {
  session @0 :UInt32;
  objectId @1 :UInt32;
  holders @2 :Data;               # msgpack: list of str
  refused @3 :Bool;
}

struct WorkerInfo {
  seq @0 :UInt64;
  info @1 :Data;                  # msgpack: map
}

struct WorkerWelcome {
  incarnation @0 :UInt32;
  workerId @1 :Text;
  cache @2 :Data;                 # msgpack: map
}

struct AssignTasks {
  session @0 :UInt32;
  templateNumbers @1 :Data;       # u32
  templates @2 :Data;             # msgpack: list of bin
  tasks @3 :Data;                 # u32
  runs @4 :Data;                  # u32
  taskTemplates @5 :Data;         # u32
  args @6 :Data;                  # msgpack: list of bin or nil
  inputCounts @7 :Data;           # u32
  inputs @8 :Data;                # u32
  outputCounts @9 :Data;          # u32
  outputs @10 :Data;              # u32
  solo @11 :Data;                 # u32
  objects @12 :Data;              # u32
  sizes @13 :Data;                # u64
  specs @14 :Data;                # msgpack: list of bin or nil
  infos @15 :Data;                # msgpack: list of bin or nil
  values @16 :Data;               # msgpack: list of bin or nil
  holders @17 :Data;              # msgpack: list of lists of str
  members @18 :Data;              # u32
  outputSpecs @19 :Data;          # msgpack: list of bin or nil
  links @20 :Data;                # msgpack: list of bin or nil
}

struct WithdrawTasks {
  session @0 :UInt32;
  tasks @1 :Data;                 # u32
  runs @2 :Data;                  # u32
}

struct CancelTasks {
  session @0 :UInt32;
  tasks @1 :Data;                 # u32
  runs @2 :Data;                  # u32
  grace @3 :Float64;              # seconds
}

struct DeleteObjects {
  session @0 :UInt32;
  objects @1 :Data;               # u32
}

struct EndSession {
  session @0 :UInt32;
}

struct GetWorkerInfo {
  seq @0 :UInt64;
  full @1 :Bool;
}

struct Explain {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32
}

struct Explained {
  seq @0 :UInt64;
  texts @1 :Data;                 # msgpack: list of str
}

struct ExplainTasks {
  seq @0 :UInt64;
  session @1 :UInt32;
  first @2 :UInt32;
  last @3 :UInt32;
}

struct TasksExplained {
  seq @0 :UInt64;
  ids @1 :Data;                   # u32
  counts @2 :Data;                # u32
  texts @3 :Data;                 # msgpack: list of str
  next @4 :UInt32;
}

struct GetDump {
  seq @0 :UInt64;
}

struct Dump {
  seq @0 :UInt64;
  dump @1 :Data;                  # msgpack: map
}

struct WorkerDigest {
  heard @0 :UInt64;
  runs @1 :UInt32;
  digest @2 :UInt64;
}

struct ListRuns {}

struct WorkerRuns {
  heard @0 :UInt64;
  sessions @1 :Data;              # u32
  tasks @2 :Data;                 # u32
  runs @3 :Data;                  # u32
}

struct StopWorker {}

struct ListSessions {
  seq @0 :UInt64;
  session @1 :UInt32;
}

struct ListTasks {
  seq @0 :UInt64;
  session @1 :UInt32;
  first @2 :UInt32;
  last @3 :UInt32;
  states @4 :Data;
  name @5 :Text;
}

struct ListObjects {
  seq @0 :UInt64;
  session @1 :UInt32;
  first @2 :UInt32;
  last @3 :UInt32;
  kept @4 :UInt8;
  label @5 :Text;
}

struct GetSpecs {
  seq @0 :UInt64;
  session @1 :UInt32;
  ids @2 :Data;                   # u32
}

struct GetTaskLog {
  seq @0 :UInt64;
  session @1 :UInt32;
  task @2 :UInt32;
  stream @3 :Text;
  offset @4 :UInt64;
  limit @5 :UInt32;
}

struct StopWorkers {
  seq @0 :UInt64;
  workers @1 :Data;               # msgpack: list of str
  now @2 :Bool;
}

struct CheckNetwork {
  seq @0 :UInt64;
}

struct SessionList {
  seq @0 :UInt64;
  sessions @1 :Data;              # msgpack: map
}

struct TaskList {
  seq @0 :UInt64;
  ids @1 :Data;                   # u32
  states @2 :Data;
  names @3 :Data;                 # msgpack: list of str
  types @4 :Data;                 # msgpack: list of str
  workers @5 :Data;               # msgpack: list of str
  starts @6 :Data;                # f64
  durations @7 :Data;             # f64
  next @8 :UInt32;
}

struct ObjectList {
  seq @0 :UInt64;
  ids @1 :Data;                   # u32
  states @2 :Data;
  labels @3 :Data;                # msgpack: list of str
  sizes @4 :Data;                 # u64
  kept @5 :Data;
  producers @6 :Data;             # u32
  next @7 :UInt32;
}

struct Specs {
  seq @0 :UInt64;
  specs @1 :Data;                 # msgpack: list of bytes or nil
}

struct TaskLog {
  seq @0 :UInt64;
  data @1 :Data;
  offset @2 :UInt64;
  size @3 :UInt64;
  ended @4 :Bool;
  hint @5 :Text;
}

struct NetworkChecked {
  seq @0 :UInt64;
  result @1 :Data;                # msgpack: map
}

struct WorkerMonitoring {
  info @0 :Data;                  # msgpack: map
}

struct TaskLogRead {
  seq @0 :UInt64;
  data @1 :Data;
  offset @2 :UInt64;
  size @3 :UInt64;
  ended @4 :Bool;
  hint @5 :Text;
}

struct PeersProbed {
  seq @0 :UInt64;
  errors @1 :Data;                # msgpack: list of str
}

struct ReadTaskLog {
  seq @0 :UInt64;
  session @1 :UInt32;
  task @2 :UInt32;
  stream @3 :Text;
  offset @4 :UInt64;
  limit @5 :UInt32;
}

struct ProbePeers {
  seq @0 :UInt64;
  addresses @1 :Data;             # msgpack: list of str
}
