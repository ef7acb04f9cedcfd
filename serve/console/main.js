// The console: everything that the page is made of, put together.
import { Approvals } from './approvals.js';
import { Calls } from './calls.js';
import { Feed } from './feed.js';
import { startHandoffs } from './handoffs.js';
import { startKillSwitch } from './kill.js';
import { Ledger } from './ledger.js';
import { startLoad } from './load.js';
import { Modes } from './modes.js';
import { Sessions } from './sessions.js';
import { Takeover } from './takeover.js';
import { Talk } from './talk.js';
import { startTheme } from './theme.js';
import { Timeline } from './timeline.js';
import { startTranscript } from './transcript.js';

const feed = new Feed();
const sessions = new Sessions(feed);
const ledger = new Ledger(feed);
const calls = new Calls(sessions, ledger);
const timeline = new Timeline(feed, sessions, ledger, (id) => calls.open(id));
const modes = new Modes(feed, sessions, ledger);
const talk = new Talk(sessions);
const takeover = new Takeover(feed, sessions, talk);

new Approvals(feed);
startHandoffs(feed, (session) => takeover.take(session));
startKillSwitch(feed, modes);
startLoad(feed);
startTranscript(feed, sessions, timeline);
startTheme(() => timeline.recolour());
feed.run();
