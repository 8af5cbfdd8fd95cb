// Loads the pages' other files. Where one of them did not arrive, as when the network changes just then, all are tried again.

const AGAIN = 2000;

import('./app.js').catch((why) => {
    if (!(why instanceof TypeError)) throw why;
    setTimeout(() => location.reload(), AGAIN);
});
