"""Every treatment of the relapse test by its name: the one place, besides its own file, that adding one touches.

From here settings, tables, figures, the report and the command line take what treatments there are, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping

from mechinterp.audit.relapse.of_blocks import ACTIVATIONS, BOTH, VALUES
from mechinterp.audit.relapse.of_groups import NEURON_GROUPS
from mechinterp.audit.relapse.of_keys import KEYS
from mechinterp.audit.relapse.of_neurons import NEURONS
from mechinterp.audit.relapse.treatment import Treatment

TREATMENTS: Mapping[str, Treatment] = {
    treatment.name: treatment for treatment in (ACTIVATIONS, VALUES, BOTH, NEURONS, KEYS, *NEURON_GROUPS)
}
