export { removeLeftovers, writeFileAtomic } from './atomic-file.ts';
export { type Backoff, createBackoff } from './backoff.ts';
export {
  type Codec,
  codecFor,
  type Decoded,
  isRecordOf,
  mayHoldRecordOf,
  type RecordFormat,
} from './codec/codec.ts';
export { decodeNerveName, decodeNerveRecord, encodeNerveRecord, nerveNamePrefix } from './codec/nerve.ts';
export { loadDirectory, type LoadedDirectory, loadFile } from './config/load.ts';
export { type ConfigProblem, formatProblem, type Loaded, nearest } from './config/problem.ts';
export {
  AnnouncedAddress,
  checkFormat,
  formatKeys,
  type HostConfig,
  HostName,
  HostSection,
  Labels,
  LogSection,
  MAX_SOCKET_PATH,
  Port,
  recordFormat,
  RegistryPath,
  type ResolvedHost,
  resolveHost,
  SafeName,
  SocketPath,
} from './config/sections.ts';
export { watchDirectories } from './config/watch.ts';
export { locate, locator, parseYaml } from './config/yaml.ts';
export { askControl } from './control/client.ts';
export { type ControlAnswer, type ControlRequest, type ControlRoute, openControl } from './control/server.ts';
export { MAX_CONTROL_PATH } from './control/socket.ts';
export { sleep, sleepOrAborted, withDeadline } from './deadline.ts';
export {
  type Binding,
  type ContainerHealth,
  containerId,
  containerName,
  containersIn,
  findPublished,
  healthIn,
  isRunning,
  readHealth,
} from './docker/container.ts';
export {
  createDockerDaemon,
  DockerAddress,
  type DockerApi,
  type DockerDaemon,
  type DockerEvent,
} from './docker/daemon.ts';
export { duration, formatDuration, parseDuration } from './duration.ts';
export {
  ERROR_CODES,
  type ErrorCode,
  isTandemError,
  messageOf,
  systemErrorCode,
  TandemError,
} from './errors.ts';
export { createHeartbeat, type Heartbeat } from './heartbeat.ts';
export {
  compareInstances,
  formatEndpoint,
  type Instance,
  type InstanceId,
  instanceId,
  type Rejection,
  type Snapshot,
  uniqueInstances,
} from './instance.ts';
export { createLatest, type Latest } from './latest.ts';
export { isObject, type JsonObject, parseJson } from './json.ts';
export { createLog, type Log, type LogLevel, silentLog } from './log.ts';
export { type AddressResolver, createAddressResolver } from './net/address-resolver.ts';
export {
  compareAddresses,
  createDnsClient,
  type DnsAnswer,
  type DnsClient,
  FAMILIES,
  type Family,
  queryName,
  type ServiceRecord,
} from './net/dns.ts';
export {
  createLineSplitter,
  fetchBody,
  followLines,
  type HttpAnswer,
  type HttpLimits,
  type HttpRequest,
} from './net/http-client.ts';
export { keepListed, type Listed, type Remote, type RemotePace } from './net/remote.ts';
export {
  FileName,
  readBasicAuth,
  readTls,
  resolveTlsFiles,
  type TlsFiles,
  TlsSection,
  warnIfOpen,
} from './net/request-files.ts';
export { type Claim, createTurns, type Rank } from './net/turns.ts';
export { createNotify, findInitSystem, type InitSystem, type Notify } from './notify.ts';
export { acquireProcessLock, type ProcessLock } from './process-lock.ts';
export {
  cleanEnvironment,
  type CommandResult,
  type Ending,
  exitOf,
  killGroup,
  runCommand,
} from './run-command.ts';
export { settled, type StartTimer } from './settle.ts';
export {
  createTokenBucket,
  takeToken,
  type TokenBucket,
  type TokenRate,
  tokenWaitMs,
} from './token-bucket.ts';
