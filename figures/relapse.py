"""Does the unsafe behaviour come back? Defense success against the dose of every treatment of the relapse test."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("relapse", __doc__)
