# Rscript student.R DATA_DIR OUT_DIR: the separate equations of 2-1-1 and 2-2-1 mediation on student.csv, by lme4 at
# tight tolerance and by lm on the table of schools with sandwich's robust covariances.
# OUT_DIR is reference/piecewise; writes student_211.json and student_221.json
suppressMessages({library(lme4); library(sandwich); library(jsonlite)})
D <- commandArgs(TRUE)[1]; O <- commandArgs(TRUE)[2]
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e6), calc.derivs = FALSE)
pupils <- read.csv(file.path(D, "student.csv"))
schools <- pupils[!duplicated(pupils$SCH_ID), ]

mixed <- function(text, REML) {
  f <- lmer(as.formula(text), pupils, REML = REML, control = tight)
  for (k in 1:2)  # bobyqa stops early in flat directions; started again where it stopped, it goes on
    f <- lmer(as.formula(text), pupils, REML = REML, control = tight, start = getME(f, "theta"))
  rows <- as.data.frame(VarCorr(f))[, c("grp", "var1", "var2", "vcov")]
  list(formula = text, method = if (REML) "REML" else "ML", engine = "lme4", logLik = as.numeric(logLik(f)),
       n_obs = nobs(f), fixef = as.list(fixef(f)), se = as.list(sqrt(diag(as.matrix(vcov(f))))),
       vcov = as.matrix(vcov(f)), varcorr = rows)
}
table_of_schools <- function(text) {
  f <- lm(as.formula(text), schools)
  J <- nrow(schools)
  list(formula = text, method = "OLS", engine = "lm", logLik = as.numeric(logLik(f)), n_obs = J,
       fixef = as.list(coef(f)), se = as.list(sqrt(diag(vcov(f)))), vcov = vcov(f), sigma2 = summary(f)$sigma^2,
       robust = list(CR0 = vcovHC(f, "HC0"), CR1 = vcovHC(f, "HC0") * J / (J - 1), CR2 = vcovHC(f, "HC2")))
}
model <- function(name, treatment, mediator, outcome, reduced, REML, upper = FALSE)
  list(name = name, treatment = treatment, mediator = if (upper) table_of_schools(mediator) else mixed(mediator, REML),
       outcome = mixed(outcome, REML), reduced = mixed(reduced, REML))
write <- function(models, name)
  write_json(list(data = "student", R = R.version.string, lme4 = as.character(packageVersion("lme4")),
                  sandwich = as.character(packageVersion("sandwich")), models = models),
             file.path(O, paste0(name, ".json")), digits = NA, auto_unbox = TRUE, pretty = TRUE)

own <- "gender + income + pared"
models <- list()
for (R in c(TRUE, FALSE)) {
  end <- if (R) "reml" else "ml"
  models <- c(models, list(
    model(paste0("catholic_late_", end), "catholic", "late ~ catholic + (1 | SCH_ID)",
          "score ~ late + catholic + (1 | SCH_ID)", "score ~ catholic + (1 | SCH_ID)", R),
    model(paste0("free_attachment_covariates_", end), "free", paste("attachment ~ free +", own, "+ (1 | SCH_ID)"),
          paste("score ~ attachment + free +", own, "+ (1 | SCH_ID)"),
          paste("score ~ free +", own, "+ (1 | SCH_ID)"), R),
    model(paste0("free_late_slope_", end), "free", paste("late ~ free +", own, "+ (1 | SCH_ID)"),
          paste("score ~ late + free +", own, "+ (1 + late | SCH_ID)"),
          paste("score ~ free +", own, "+ (1 | SCH_ID)"), R)))
}
write(models, "student_211")

models <- list()
for (R in c(TRUE, FALSE)) {
  end <- if (R) "reml" else "ml"
  models <- c(models, list(
    model(paste0("free_smorale_", end), "free", "smorale ~ free", "score ~ smorale + free + (1 | SCH_ID)",
          "score ~ free + (1 | SCH_ID)", R, TRUE),
    model(paste0("catholic_smorale_covariates_", end), "catholic", "smorale ~ catholic + free + coed",
          paste("score ~ smorale + catholic + free + coed +", own, "+ (1 + pared | SCH_ID)"),
          paste("score ~ catholic + free + coed +", own, "+ (1 + pared | SCH_ID)"), R, TRUE)))
}
write(models, "student_221")
